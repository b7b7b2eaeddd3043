// Split K: a GEMM with few block tiles and a long K is cut into slices of K, so that more blocks run at once.
//
// A first launch, with a block along z per slice, stores each slice's sums in a workspace. A second launch adds the
// slices up, in order, a thread per WIDTH neighbours of the tile, and runs the epilogue.
// hipgpt/compute/backends/split_k.py decides on the number of slices and reads the phases here.
#pragma once
#include "gpu/select/platform.h"

constexpr int WHOLE_K = 0;     // the only launch: all of K, then the epilogue
constexpr int K_SLICES = 1;    // the first launch of two
constexpr int ADD_SLICES = 2;  // the second launch of two

struct SplitK {
    float* workspace;
    int32_t phase, slice_count;
};

// Which tile of C and which range of K a block computes.
#pragma once
#include "gpu/select/platform.h"

struct BlockTile {
    int64_t row, column;  // in tiles
};

// Blocks visit the tiles in bands of BAND rows of tiles, so that blocks that run at the same time share operands in L2.
DEVICE BlockTile block_tile() {
    constexpr int64_t BAND = 8;
    const int64_t columns = gridDim.x, linear = int64_t{blockIdx.y} * columns + blockIdx.x, size = BAND * columns;
    const int64_t first = linear / size * BAND, rows = gridDim.y - first < BAND ? gridDim.y - first : BAND;
    return {first + linear % size % rows, linear % size / rows};
}

struct KRange {
    int64_t first, last;
    int stages;
};

// The grid's z dimension cuts K into slices, whole stages of `depth` each: see split_k.h. Where a source defines
// GEMM_PER_Z, each z is a GEMM of its own, over all of K.
DEVICE KRange k_range(int64_t K, int depth) {
#ifdef GEMM_PER_Z
    return {0, K, static_cast<int>((K + depth - 1) / depth)};
#else
    const int64_t stages = (K + depth - 1) / depth, each = (stages + gridDim.z - 1) / gridDim.z * depth;
    const int64_t first = blockIdx.z * each, last = first + each < K ? first + each : K;
    return {first, last, last > first ? static_cast<int>((last - first + depth - 1) / depth) : 0};
#endif
}

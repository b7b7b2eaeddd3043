// The vendor's words, NVIDIA: what the kernels of this folder call instead of them. WAVE comes from the compiler's options.
#pragma once
#include "common.h"

DEVICE float wave_exchange(float value, int lane_mask) { return __shfl_xor_sync(0xffffffffu, value, lane_mask); }

// Orders the shared memory of a wave's lanes; lanes that a kernel has returned from do not take part.
DEVICE void wave_barrier() { __syncwarp(); }

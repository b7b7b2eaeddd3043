// The vendor's words, AMD: what the kernels of this folder call instead of them. WAVE comes from the compiler's options.
#pragma once
#include "common.h"

DEVICE float wave_exchange(float value, int lane_mask) { return __shfl_xor(value, lane_mask, WAVE); }

// Orders the shared memory of a wave's lanes, which run in step.
DEVICE void wave_barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}

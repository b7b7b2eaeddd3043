// The vendor's words, NVIDIA: what the kernels of this folder call instead of them. WAVE comes from the compiler's options.
#pragma once
#include "common.h"

DEVICE float wave_exchange(float value, int lane_mask) { return __shfl_xor_sync(0xffffffffu, value, lane_mask); }

// The lanes whose `chosen` is true, a bit each. All lanes of the wave must call it.
DEVICE uint64_t wave_ballot(bool chosen) { return __ballot_sync(0xffffffffu, chosen); }

// Orders the shared memory of a wave's lanes; lanes that a kernel has returned from do not take part.
DEVICE void wave_barrier() { __syncwarp(); }

// 2^x, e^x and 1 / x by the chip's own instructions: see formulas.h.
DEVICE float quick_exp2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
DEVICE float quick_exp(float x) { return quick_exp2(x * 1.44269504f); }
DEVICE float quick_reciprocal(float x) { return __fdividef(1.0f, x); }

// Two bf16, the first in the low half.
DEVICE uint32_t bf16_pair(float first, float second) {
#if __CUDA_ARCH__ >= 800
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return bf16_bits(first) | bf16_bits(second) << 16;
#endif
}

DEVICE uint32_t shared_address(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

// Copies 16 bytes from global to shared memory, or zeros if not `inside`, without waiting for them: copies_wait<LEFT> waits
// until no more than LEFT of the batches that copies_commit closed are under way.
DEVICE void copy_chunk(bf16* shared, const bf16* source, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(source), "r"(inside ? 16 : 0)
                 : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT>
DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

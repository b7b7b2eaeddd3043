// NVIDIA's functions for what kernels need of a platform. hip.h has the same ones. WAVE is a macro of the build.
#pragma once
#include "gpu/platform/common.h"

// The first lane's value, in a scalar register. For values that are equal in all lanes of a wave.
DEVICE int uniform(int64_t value) { return __shfl_sync(0xffffffffu, static_cast<int>(value), 0); }

// The value of the lane whose index differs in the bits of lane_mask.
DEVICE float wave_exchange(float value, int lane_mask) { return __shfl_xor_sync(0xffffffffu, value, lane_mask); }
template <int LANE_MASK>
DEVICE float wave_exchange(float value) {
    return wave_exchange(value, LANE_MASK);
}

// Over LANES neighbouring lanes, in a fixed order.
template <int LANES>
DEVICE float sum_of_lanes(float value) {
    for (int mask = LANES / 2; mask > 0; mask /= 2) value += wave_exchange(value, mask);
    return value;
}
template <int LANES>
DEVICE float maximum_of_lanes(float value) {
    for (int mask = LANES / 2; mask > 0; mask /= 2) value = fmaxf(value, wave_exchange(value, mask));
    return value;
}

// A bit per lane, set where `chosen` is true. All lanes of the wave must call it.
DEVICE uint64_t wave_ballot(bool chosen) { return __ballot_sync(0xffffffffu, chosen); }

// Orders the shared memory accesses of a wave's lanes. Lanes that have left the kernel do not take part.
DEVICE void wave_barrier() { __syncwarp(); }

// 2^x, e^x and 1 / x by the chip's own instructions: see formulas.h.
DEVICE float quick_exp2(float x) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
    return power;
}
DEVICE float quick_exp(float x) { return quick_exp2(x * LOG2_E); }
DEVICE float quick_reciprocal(float x) {
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(x));
    return reciprocal;
}

// Two bf16 in 32 bits, the first in the low half.
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

// Starts to copy 16 bytes from global to shared memory, or 16 zero bytes if not `inside`. copies_commit closes a batch
// of copies; copies_wait<LEFT> waits until at most LEFT batches are still on their way.
DEVICE void copy_chunk(bf16* shared, const bf16* source, bool inside) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(source),
                 "r"(inside ? 16 : 0)
                 : "memory");
}
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT>
DEVICE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

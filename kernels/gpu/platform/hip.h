// The vendor's words, AMD: what the kernels of this folder call instead of them. WAVE comes from the compiler's options.
#pragma once
#include "common.h"

DEVICE float wave_exchange(float value, int lane_mask) { return __shfl_xor(value, lane_mask, WAVE); }

// The lanes whose `chosen` is true, a bit each. All lanes of the wave must call it.
DEVICE uint64_t wave_ballot(bool chosen) { return __ballot(chosen); }

// Orders the shared memory of a wave's lanes, which run in step.
DEVICE void wave_barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
    __builtin_amdgcn_wave_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}

// The same value, of which the compiler knows nothing: what is made from it is made where it is used. Without that, the
// addresses of everything that a loop reads are made before the loop and fill the registers.
template <class T>
DEVICE T opaque(T value) {
    asm volatile("" : "+v"(value));
    return value;
}

// 2^x, e^x and 1 / x by the chip's own instructions: see formulas.h.
DEVICE float quick_exp2(float x) { return __builtin_amdgcn_exp2f(x); }
DEVICE float quick_exp(float x) { return quick_exp2(x * 1.44269504f); }
DEVICE float quick_reciprocal(float x) { return __builtin_amdgcn_rcpf(x); }

// Two bf16, the first in the low half.
DEVICE uint32_t bf16_pair(float first, float second) { return bf16_bits(first) | bf16_bits(second) << 16; }

// Copies 16 bytes from global to shared memory, or zeros if not `inside`. Done when the call ends: nothing to wait for.
DEVICE void copy_chunk(bf16* shared, const bf16* source, bool inside) {
    typedef uint32_t Chunk __attribute__((vector_size(16)));  // a class would go through private memory
    Chunk chunk = {};
    if (inside) chunk = *reinterpret_cast<const Chunk*>(source);
    *reinterpret_cast<Chunk*>(shared) = chunk;
}
DEVICE void copies_commit() {}
template <int LEFT>
DEVICE void copies_wait() {}

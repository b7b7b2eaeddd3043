// AMD's functions for what kernels need of a platform. cuda.h has the same ones. WAVE is a macro of the build.
#pragma once
#include "gpu/platform/common.h"

// KERNEL with so few registers that a SIMD holds this many waves. With two, clang keeps the sums of MFMAs in vector
// registers. With one, it keeps them in accumulation registers, from which other instructions must copy them.
#define BOUNDED_KERNEL(threads, waves) \
    extern "C" __global__ __attribute__((amdgpu_waves_per_eu(waves))) void __launch_bounds__(threads)

#if WAVE == 32
// The value of the lane whose index differs by 16. Without `bound_ctrl` clang would first set the result to 0.
DEVICE uint32_t other_half(uint32_t value) {
    return __builtin_amdgcn_permlanex16(0, value, 0x76543210, 0xFEDCBA98, false, true);
}
// The value of lane `lane % 16`, and of the one 16 lanes later: bits 0 to 4 of the pattern are an AND mask for the number
// of the source lane, bits 5 to 9 an OR mask.
DEVICE uint32_t of_first_half(uint32_t value) { return __builtin_amdgcn_ds_swizzle(value, 0x000F); }
DEVICE uint32_t of_second_half(uint32_t value) { return __builtin_amdgcn_ds_swizzle(value, 0x020F); }
#endif

// The value of one of the lane's 15 neighbours, as DPP selects it: a part of the instruction that uses it.
template <int CONTROL>
DEVICE float by_dpp(float value) {
    return bits_float(__builtin_amdgcn_update_dpp(0, float_bits(value), CONTROL, 0xF, 0xF, true));
}

// The value of the lane whose index differs in the bits of LANE_MASK. Only what DPP cannot do goes through the LDS unit.
// DPP: "AMD Instinct MI300 ISA", 3.12 and "RDNA3 ISA", DPP16.
template <int LANE_MASK>
DEVICE float wave_exchange(float value) {
    static_assert((LANE_MASK & (LANE_MASK - 1)) == 0 && LANE_MASK > 0 && LANE_MASK < WAVE,
                  "one bit of a lane's number");
    if constexpr (LANE_MASK == 1) return by_dpp<0xB1>(value);   // quad_perm:[1,0,3,2]
    if constexpr (LANE_MASK == 2) return by_dpp<0x4E>(value);   // quad_perm:[2,3,0,1]
    if constexpr (LANE_MASK == 8) return by_dpp<0x128>(value);  // row_ror:8
#if WAVE == 32
    if constexpr (LANE_MASK == 4) return by_dpp<0x164>(value);  // row_xmask:4
    if constexpr (LANE_MASK == 16) return bits_float(other_half(float_bits(value)));
#else
    if constexpr (LANE_MASK == 4) return by_dpp<0x1B>(by_dpp<0x141>(value));  // row_half_mirror, quad_perm:[3,2,1,0]
    if constexpr (LANE_MASK == 16) return bits_float(__builtin_amdgcn_ds_swizzle(float_bits(value), 0x401F));
    if constexpr (LANE_MASK == 32)  // by the source lane's number, modulo the wave, times 4
        return bits_float(__builtin_amdgcn_ds_bpermute((threadIdx.x ^ 32) * 4, float_bits(value)));
#endif
}

// Over LANES neighbouring lanes, in a fixed order.
template <int LANES>
DEVICE float sum_of_lanes(float value) {
    value += wave_exchange<LANES / 2>(value);
    if constexpr (LANES > 2) value = sum_of_lanes<LANES / 2>(value);
    return value;
}
template <int LANES>
DEVICE float maximum_of_lanes(float value) {
    value = fmaxf(value, wave_exchange<LANES / 2>(value));
    if constexpr (LANES > 2) value = maximum_of_lanes<LANES / 2>(value);
    return value;
}

// A bit per lane, set where `chosen` is true. All lanes of the wave must call it.
DEVICE uint64_t wave_ballot(bool chosen) { return __ballot(chosen); }

// The same value, hidden from the optimiser, so that whatever depends on it is computed where it is used. Otherwise the
// compiler computes the addresses of all loads of a loop before the loop, and they fill the registers.
template <class T>
DEVICE T opaque(T value) {
    asm volatile("" : "+v"(value));
    return value;
}

// The same value, which all lanes of the wave have, in a scalar register.
DEVICE int uniform(int64_t value) { return __builtin_amdgcn_readfirstlane(static_cast<int>(value)); }
DEVICE float uniform_float(float value) { return bits_float(uniform(float_bits(value))); }
DEVICE int64_t uniform_wide(int64_t value) {
    return static_cast<int64_t>(uniform(value >> 32)) << 32 | static_cast<uint32_t>(uniform(value));
}

// The low, and the high, 16 bits of two words in one, those of `first` in its low half.
DEVICE uint32_t low_halves(uint32_t first, uint32_t second) {
    return __builtin_amdgcn_perm(second, first, 0x05040100u);
}
DEVICE uint32_t high_halves(uint32_t first, uint32_t second) {
    return __builtin_amdgcn_perm(second, first, 0x07060302u);
}

// 2^x, e^x and 1 / x by the chip's own instructions: see formulas.h.
DEVICE float quick_exp2(float x) { return __builtin_amdgcn_exp2f(x); }
DEVICE float quick_exp(float x) { return quick_exp2(x * LOG2_E); }
DEVICE float quick_reciprocal(float x) { return __builtin_amdgcn_rcpf(x); }

// Two bf16 in 32 bits, the first in the low half, rounded to nearest, ties to even. The second function is for finite
// values, which take fewer instructions. It rounds ties away from zero where a chip has no instruction for it: the error
// is at most the same half unit in the last place.
#ifdef __gfx950__  // has an instruction for it
DEVICE uint32_t bf16_pair(float first, float second) {
    typedef float Floats __attribute__((vector_size(8)));
    typedef __bf16 Pair __attribute__((vector_size(4)));
    return __builtin_bit_cast(uint32_t, __builtin_convertvector((Floats{first, second}), Pair));
}
DEVICE uint32_t bf16_pair_of_finite(float first, float second) { return bf16_pair(first, second); }
#else
DEVICE uint32_t bf16_pair(float first, float second) { return bf16_bits(first) | bf16_bits(second) << 16; }
DEVICE uint32_t bf16_pair_of_finite(float first, float second) {
    return high_halves(float_bits(first) + 0x8000u, float_bits(second) + 0x8000u);
}
#endif

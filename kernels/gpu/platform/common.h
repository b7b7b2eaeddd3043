// What both vendors' headers share: integer types, function qualifiers, bits of f32 and bf16.
#pragma once
typedef int int32_t;
typedef unsigned int uint32_t;
// Run-time compilers disagree on whether they define the 64-bit types, and as which of two built-in types.
typedef long long hipgpt_int64;
typedef unsigned long long hipgpt_uint64;
#define int64_t hipgpt_int64
#define uint64_t hipgpt_uint64

#define HIPGPT_SCALAR static __device__ __forceinline__
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

DEVICE int32_t float_bits(float value) { return __float_as_int(value); }
DEVICE float bits_float(int32_t bits) { return __int_as_float(bits); }
DEVICE uint64_t double_bits(double value) { return static_cast<uint64_t>(__double_as_longlong(value)); }
DEVICE double bits_double(uint64_t bits) { return __longlong_as_double(static_cast<long long>(bits)); }

// The index of the lowest set bit; bits must not be 0.
DEVICE int lowest_bit(uint64_t bits) { return __ffsll(static_cast<long long>(bits)) - 1; }

// The upper half of an f32.
struct bf16 {
    unsigned short bits;
};

// Rounds to nearest, ties to even; NaN stays NaN.
DEVICE uint32_t bf16_bits(float value) {
    const uint32_t bits = float_bits(value);
    return (bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}

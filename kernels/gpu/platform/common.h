// What the vendors' headers of this folder share.
#pragma once
typedef int int32_t;
typedef unsigned int uint32_t;
// run-time compilers disagree on whether they define these, and as which of two 64-bit types
typedef long long hipgpt_int64;
typedef unsigned long long hipgpt_uint64;
#define int64_t hipgpt_int64
#define uint64_t hipgpt_uint64

#define HIPGPT_SCALAR static __device__ __forceinline__
#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

DEVICE int32_t float_bits(float value) { return __float_as_int(value); }
DEVICE float bits_float(int32_t bits) { return __int_as_float(bits); }

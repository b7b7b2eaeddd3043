// What a kernel is compiled with where there is no ROCm, in place of HIPRTC's own header: the words that kernels/gpu uses,
// on top of clang's own header for HIP. Checks that kernels compile; what runs on a chip, HIPRTC makes.
#pragma once
#include <__clang_hip_runtime_wrapper.h>

#define __launch_bounds__(threads) __attribute__((amdgpu_flat_work_group_size(1, threads)))
#define __forceinline__ inline __attribute__((always_inline))

struct Index {
    unsigned x, y, z;
};

#define threadIdx \
    (Index{__builtin_amdgcn_workitem_id_x(), __builtin_amdgcn_workitem_id_y(), __builtin_amdgcn_workitem_id_z()})
#define blockIdx \
    (Index{__builtin_amdgcn_workgroup_id_x(), __builtin_amdgcn_workgroup_id_y(), __builtin_amdgcn_workgroup_id_z()})

// The numbers of blocks are the first of the hidden arguments that follow a kernel's own: LLVM's "User Guide for AMDGPU
// Backend", code object V5.
static __device__ __forceinline__ Index blocks_of_grid() {
    const auto* counts = (const __attribute__((address_space(4))) unsigned*)__builtin_amdgcn_implicitarg_ptr();
    return {counts[0], counts[1], counts[2]};
}
#define gridDim (blocks_of_grid())

static __device__ __forceinline__ int __float_as_int(float value) { return __builtin_bit_cast(int, value); }
static __device__ __forceinline__ float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }
static __device__ __forceinline__ long long __double_as_longlong(double value) {
    return __builtin_bit_cast(long long, value);
}
static __device__ __forceinline__ double __longlong_as_double(long long bits) {
    return __builtin_bit_cast(double, bits);
}

static __device__ __forceinline__ void __syncthreads() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

// Lanes are addressed in bytes; mbcnt counts the lanes before this one.
static __device__ __forceinline__ float __shfl_xor(float value, int mask, int width) {
    const int lane = __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u));
    const int partner = lane ^ mask, end = (lane + width) & ~(width - 1);
    return __int_as_float(__builtin_amdgcn_ds_bpermute((partner < end ? partner : lane) * 4, __float_as_int(value)));
}

// One bit of each lane that is at work, lane 0's the lowest.
static __device__ __forceinline__ unsigned long long __ballot(int chosen) {
    return WAVE == 64 ? __builtin_amdgcn_ballot_w64(chosen) : __builtin_amdgcn_ballot_w32(chosen);
}

// Returns the value before. It orders no other accesses.
static __device__ __forceinline__ int atomicAdd(int* target, int value) {
    return __hip_atomic_fetch_add(target, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}

static __device__ __forceinline__ int __ffsll(long long bits) { return __builtin_ffsll(bits); }

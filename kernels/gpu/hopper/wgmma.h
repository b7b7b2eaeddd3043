// Hopper's wgmma: a warpgroup of four warps multiplies 64 rows of A by N rows of B over 16 of K. B, and A unless it is in
// registers, are tiles in shared memory with the "128-byte swizzle" layout: rows of 64 elements whose chunks of 16 bytes
// are permuted by row % 8. PTX ISA, "Asynchronous warpgroup level matrix instructions".
//
// A thread holds N / 2 sums. Sum 4g + 2h + e of lane l of warp w has row 16w + l/4 + 8h and column 8g + l%4 * 2 + e.
#pragma once
#include "gpu/hopper/barrier.h"

constexpr int WARPGROUP = 128;  // threads

// The first row of a thread's sums among its warpgroup's rows; the other is 8 below. The column of sum i, if i is even.
DEVICE int sums_row() { return threadIdx.x % WARPGROUP / 32 * 16 + threadIdx.x % 32 / 4; }
DEVICE int sums_column(int i) { return i / 4 * 8 + threadIdx.x % 4 * 2; }

// Sums and operands in registers are ready for wgmma.
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// wgmma_commit closes a batch of multiplications; wgmma_wait<LEFT> waits until at most LEFT batches are unfinished.
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int LEFT>
DEVICE void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}

// The descriptor of an operand in shared memory, in units of 16 bytes: start, distance between blocks of 64 columns,
// distance between blocks of 8 rows.
DEVICE uint64_t descriptor(const bf16* tile, int block_bytes) {
    const uint64_t start = shared_address(tile) >> 4 & 0x3FFF, swizzle = 1ull << 62;
    return start | static_cast<uint64_t>(block_bytes >> 4) << 16 | static_cast<uint64_t>(1024 >> 4) << 32 | swizzle;
}

// The descriptor of the operand that starts `elements` later. One addition, because the start alone changes.
DEVICE uint64_t later(uint64_t descriptor, int elements) {
    uint64_t moved;
    asm("{ .reg .b32 start, layout; mov.b64 {start, layout}, %1; add.u32 start, start, %2; "
        "mov.b64 %0, {start, layout}; }"
        : "=l"(moved)
        : "l"(descriptor), "r"(elements / 8));
    return moved;
}

#define FOUR(sum, i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define SIXTEEN(sum, i) FOUR(sum, i), FOUR(sum, i + 4), FOUR(sum, i + 8), FOUR(sum, i + 12)
#define SIXTY_FOUR(sum, i) SIXTEEN(sum, i), SIXTEEN(sum, i + 16), SIXTEEN(sum, i + 32), SIXTEEN(sum, i + 48)

// sums (64, N) = a b^T, added to sums if accumulate. A_ROWS_ARE_K, B_ROWS_ARE_K: 1 if the tile's rows are k.
template <int A_ROWS_ARE_K, int B_ROWS_ARE_K>
DEVICE void wgmma(float (&sums)[4], uint64_t a, uint64_t b, bool accumulate = true) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %6, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3}, "
        "%4, %5, add, 1, 1, %7, %8; }"
        : FOUR(sums, 0)
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(A_ROWS_ARE_K), "n"(B_ROWS_ARE_K));
}
template <int A_ROWS_ARE_K, int B_ROWS_ARE_K>
DEVICE void wgmma(float (&sums)[32], uint64_t a, uint64_t b, bool accumulate = true) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %34, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "%32, %33, add, 1, 1, %35, %36; }"
        : SIXTEEN(sums, 0), SIXTEEN(sums, 16)
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(A_ROWS_ARE_K), "n"(B_ROWS_ARE_K));
}
template <int A_ROWS_ARE_K, int B_ROWS_ARE_K>
DEVICE void wgmma(float (&sums)[64], uint64_t a, uint64_t b, bool accumulate = true) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %66, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "%64, %65, add, 1, 1, %67, %68; }"
        : SIXTY_FOUR(sums, 0)
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(A_ROWS_ARE_K), "n"(B_ROWS_ARE_K));
}
template <int A_ROWS_ARE_K, int B_ROWS_ARE_K>
DEVICE void wgmma(float (&sums)[128], uint64_t a, uint64_t b, bool accumulate = true) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %130, 0; wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "%128, %129, add, 1, 1, %131, %132; }"
        : SIXTY_FOUR(sums, 0), SIXTY_FOUR(sums, 64)
        : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)), "n"(A_ROWS_ARE_K), "n"(B_ROWS_ARE_K));
}

// The same with A in registers, as a sum's pairs are packed: rows l/4 and l/4 + 8 of columns 0 to 7, then 8 to 15.
template <int B_ROWS_ARE_K>
DEVICE void wgmma(float (&sums)[32], const uint32_t (&a)[4], uint64_t b, bool accumulate = true) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %37, 0; wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
        "{%32, %33, %34, %35}, %36, add, 1, 1, %38; }"
        : SIXTEEN(sums, 0), SIXTEEN(sums, 16)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), "n"(B_ROWS_ARE_K));
}
template <int B_ROWS_ARE_K>
DEVICE void wgmma(float (&sums)[64], const uint32_t (&a)[4], uint64_t b, bool accumulate = true) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, %69, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
        "{%64, %65, %66, %67}, %68, add, 1, 1, %70; }"
        : SIXTY_FOUR(sums, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(accumulate)), "n"(B_ROWS_ARE_K));
}

// Keeps the compiler from reading sums before an earlier wgmma_wait, or from changing them after it.
template <int COUNT>
DEVICE void wgmma_sums_ready(float (&sums)[COUNT]) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sums[i]));
}

// The GEMM by Hopper's wgmma, which reads its operands from shared memory while threads copy the next stage: PTX ISA,
// "Asynchronous warpgroup level matrix instructions". A block is one warpgroup and computes a block tile of 128 x 128
// as two halves of 64 rows. Tiles have the layout that wgmma calls "128-byte swizzle", which is SharedTile<8>: rows of
// 64 elements, chunks permuted by row % 8.
#pragma once
#include "gpu/gemm/tile_loader.h"
#include "gpu/gemm/epilogue.h"

constexpr int SIDE = BLOCK_TILE, STAGE_K = 64, STAGE_BYTES = 2 * SIDE * STAGE_K * 2;
static_assert(SIDE == 128 && MMA_THREADS == 128, "");
static_assert(STAGES * STAGE_BYTES == WGMMA_SHARED_BYTES, "");

// A tile with longer rows is several tiles of 64 columns, one after another. ROWS: of the whole tile.
template <int ROWS>
struct Swizzled {
    static constexpr int ROW = 64;
    static DEVICE_MEMBER int offset(int row, int chunk) {
        return chunk / 8 * ROWS * ROW + SharedTile<8>::offset(row, chunk % 8);
    }
};

// wgmma's descriptor of an operand in shared memory, in units of 16 bytes: start, distance between blocks of 64
// columns, distance between blocks of 8 rows.
DEVICE uint64_t descriptor(const bf16* tile, int block_bytes) {
    const uint64_t start = shared_address(tile) >> 4 & 0x3FFF, swizzle = 1ull << 62;
    return start | static_cast<uint64_t>(block_bytes >> 4) << 16 | static_cast<uint64_t>(1024 >> 4) << 32 | swizzle;
}

#define FOUR(sum, i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define SIXTEEN(sum, i) FOUR(sum, i), FOUR(sum, i + 4), FOUR(sum, i + 8), FOUR(sum, i + 12)

// sum (64, 128) += a b^T over 16 of K. A_ROWS_ARE_K, B_ROWS_ARE_K: 1 if the tile's rows are k.
template <int A_ROWS_ARE_K, int B_ROWS_ARE_K>
DEVICE void multiply_64x128(float (&sum)[64], uint64_t a, uint64_t b) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, add, 1, 1, %66, "
        "%67; }"
        : SIXTEEN(sum, 0), SIXTEEN(sum, 16), SIXTEEN(sum, 32), SIXTEEN(sum, 48)
        : "l"(a), "l"(b), "n"(A_ROWS_ARE_K), "n"(B_ROWS_ARE_K));
}

// sum (64, 8) += a b^T over 16 of K.
template <int A_ROWS_ARE_K>
DEVICE void multiply_64x8(float (&sum)[4], uint64_t a, uint64_t b) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3}, %4, %5, add, 1, 1, %6, 0; }"
        : FOUR(sum, 0)
        : "l"(a), "l"(b), "n"(A_ROWS_ARE_K));
}

// A_K_CONTIGUOUS, B_K_CONTIGUOUS: see TileLoader.
template <bool A_K_CONTIGUOUS, bool B_K_CONTIGUOUS>
struct Gemm {
    static constexpr int HALF = SIDE / 2,
                         TILE = SIDE * STAGE_K;  // rows of half a block tile; elements of an operand's stage
    using LayoutA = Swizzled<A_K_CONTIGUOUS ? SIDE : STAGE_K>;
    using LayoutB = Swizzled<B_K_CONTIGUOUS ? SIDE : STAGE_K>;
    using Out = Epilogue<SIDE, HALF, 1, MMA_THREADS, 4>;
    static_assert(Out::BYTES <= STAGES * STAGE_BYTES, "");

    // C (M, N) = A (M, K) B (N, K)^T. operation, row_store: Fused and NoRowSums or AddRowSums of epilogue.h.
    template <class Operation, class RowStore>
    static DEVICE_MEMBER void run(Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Operation& operation,
                                  const RowStore& row_store, const SplitK& split_k) {
        extern __shared__ __align__(1024) unsigned char stage_memory[];
        __shared__ __align__(1024) uint32_t ones[256];  // bf16 ones as an operand of 8 rows; any layout reads the same
        bf16* memory = reinterpret_cast<bf16*>(stage_memory);
        const BlockTile tile = block_tile();
        const int64_t first_row = tile.row * SIDE, first_column = tile.column * SIDE;
        const KRange range = k_range(K, STAGE_K);
        const bool sums_rows = RowStore::POSSIBLE && tile.column == 0 && row_store.requested();
        const Out out = {reinterpret_cast<float*>(memory), split_k, tile, M, N};
        if (split_k.phase == ADD_SLICES) return out.add_slices(operation, row_store, sums_rows);
        TileLoader<SIDE, STAGE_K, A_K_CONTIGUOUS, MMA_THREADS, LayoutA> loader_a(a, first_row, M, range.first,
                                                                                 range.last);
        TileLoader<SIDE, STAGE_K, B_K_CONTIGUOUS, MMA_THREADS, LayoutB> loader_b(b, first_column, N, range.first,
                                                                                 range.last);
        float sums[2][64] = {}, row_sums[2][4] = {};
        if constexpr (RowStore::POSSIBLE)
            for (int i = threadIdx.x; i < 256; i += MMA_THREADS) ones[i] = 0x3F803F80u;
        auto load_stage = [&](int stage) {
            bf16* stage_tiles = memory + stage % STAGES * (STAGE_BYTES / 2);
            if (stage < range.stages) {
                loader_a.load_stage(stage_tiles);
                loader_b.load_stage(stage_tiles + TILE);
            }
            copies_commit();
        };
#pragma unroll 1
        for (int stage = 0; stage < STAGES - 1; ++stage) load_stage(stage);
#pragma unroll 1
        for (int stage = 0; stage < range.stages; ++stage) {
            copies_wait<STAGES - 2>();
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // wgmma sees what threads wrote
            asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            __syncthreads();
            const bf16 *tile_a = memory + stage % STAGES * (STAGE_BYTES / 2), *tile_b = tile_a + TILE;
            asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
            for (int k = 0; k < STAGE_K; k += MMA_TILE) {
                // the next 16 of K are further along a row, or 16 rows below
                const uint64_t right = descriptor(tile_b + (B_K_CONTIGUOUS ? k : k * 64), STAGE_K * 128);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const bf16* rows = tile_a + half * (A_K_CONTIGUOUS ? HALF * 64 : STAGE_K * 64);
                    const uint64_t left = descriptor(rows + (A_K_CONTIGUOUS ? k : k * 64), STAGE_K * 128);
                    multiply_64x128<!A_K_CONTIGUOUS, !B_K_CONTIGUOUS>(sums[half], left, right);
                    if constexpr (RowStore::POSSIBLE)
                        if (sums_rows)
                            multiply_64x8<!A_K_CONTIGUOUS>(row_sums[half], left,
                                                           descriptor(reinterpret_cast<bf16*>(ones), 0));
                }
            }
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            load_stage(stage + STAGES - 1);
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");

        const int lane = threadIdx.x % 32, sum_row = threadIdx.x / 32 * 16 + lane / 4;
        if constexpr (RowStore::POSSIBLE)
            if (sums_rows) {
                __syncthreads();
                if (lane % 4 == 0)
#pragma unroll
                    for (int i = 0; i < 4; ++i)
                        out.shared[i / 2 * HALF + sum_row + i % 2 * 8] = row_sums[i / 2][i % 2 * 2];
                __syncthreads();
                out.write_row_sums(row_store);
            }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            __syncthreads();
#pragma unroll
            for (int i = 0; i < 64; ++i)
                out.shared[(sum_row + i / 2 % 2 * 8) * Out::ROW + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[half][i];
            __syncthreads();
            out.write(half * HALF, operation);
        }
    }
};

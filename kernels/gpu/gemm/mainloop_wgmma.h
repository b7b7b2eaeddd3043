// The GEMM by Hopper's wgmma, which reads its operands from shared memory while threads copy the next stage: PTX ISA,
// "Asynchronous warpgroup level matrix instructions". A block is one warpgroup and computes a block tile of 128 x 128
// as two halves of 64 rows. Tiles have the layout that wgmma calls "128-byte swizzle", which is SharedTile<8>: rows of
// 64 elements, chunks permuted by row % 8.
#pragma once
#include "gpu/gemm/tile_loader.h"
#include "gpu/gemm/epilogue.h"
#include "gpu/hopper/wgmma.h"

constexpr int GEMM_THREADS = MMA_THREADS, SIDE = BLOCK_TILE, STAGE_K = 64, STAGE_BYTES = 2 * SIDE * STAGE_K * 2;
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
            fence_shared();
            wgmma_wait<0>();
            __syncthreads();
            const bf16 *tile_a = memory + stage % STAGES * (STAGE_BYTES / 2), *tile_b = tile_a + TILE;
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < STAGE_K; k += MMA_TILE) {
                // the next 16 of K are further along a row, or 16 rows below
                const uint64_t right = descriptor(tile_b + (B_K_CONTIGUOUS ? k : k * 64), STAGE_K * 128);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const bf16* rows = tile_a + half * (A_K_CONTIGUOUS ? HALF * 64 : STAGE_K * 64);
                    const uint64_t left = descriptor(rows + (A_K_CONTIGUOUS ? k : k * 64), STAGE_K * 128);
                    wgmma<!A_K_CONTIGUOUS, !B_K_CONTIGUOUS>(sums[half], left, right);
                    if constexpr (RowStore::POSSIBLE)
                        if (sums_rows)
                            wgmma<!A_K_CONTIGUOUS, 0>(row_sums[half], left,
                                                      descriptor(reinterpret_cast<bf16*>(ones), 0));
                }
            }
            wgmma_commit();
            load_stage(stage + STAGES - 1);
        }
        wgmma_wait<0>();

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

// The GEMM by the chip's mma. MMA_WAVES waves share a block tile of SIDE x SIDE. A stage, STAGE_K of K of both
// operands, is in shared memory; STAGES of them are loaded ahead, so that copies overlap with computing. Needs at most
// 48 KiB of shared memory.
#pragma once
#include "gpu/gemm/tile_loader.h"
#include "gpu/gemm/epilogue.h"
#include "gpu/mma/mma_sync.h"

constexpr int GEMM_THREADS = MMA_THREADS, SIDE = BLOCK_TILE, STAGE_BYTES = 16 << 10;
static_assert(SMALLEST_BLOCK_TILE <= SIDE && SIDE <= LARGEST_BLOCK_TILE, "");

// A_K_CONTIGUOUS, B_K_CONTIGUOUS: see TileLoader.
template <bool A_K_CONTIGUOUS, bool B_K_CONTIGUOUS>
struct Gemm {
    static constexpr int STAGE_K = STAGE_BYTES / 4 / SIDE;
    // A wave computes a square of the block tile. Where fewer waves than MMA_WAVES fill the block tile, the others form
    // further groups, which share each stage's K: with SIDE 32 every wave computes the whole tile over its share.
    static constexpr int WAVE_SIDE = SIDE == 128 ? 64 : 32, SQUARES_ALONG = SIDE / WAVE_SIDE;
    static constexpr int SQUARES = SQUARES_ALONG * SQUARES_ALONG, GROUPS = MMA_WAVES / SQUARES,
                         GROUP_K = STAGE_K / GROUPS;
    static constexpr int EACH = WAVE_SIDE / MMA_TILE;      // mma tiles along the side of a wave's square
    static constexpr int ROW_SUMS = EACH / SQUARES_ALONG;  // mma tiles of which a wave sums the rows of A
    using TileA = SharedTile<(A_K_CONTIGUOUS ? STAGE_K : SIDE) / WIDTH>;
    using TileB = SharedTile<(B_K_CONTIGUOUS ? STAGE_K : SIDE) / WIDTH>;
    using Out = Epilogue<SIDE, WAVE_SIDE, GROUPS, MMA_THREADS, 4>;
    using Sum = Mma::Sum;
    static_assert(Out::BYTES <= STAGES * STAGE_BYTES, "");

    // C (M, N) = A (M, K) B (N, K)^T. operation, row_store: Fused and NoRowSums or AddRowSums of epilogue.h.
    template <class Operation, class RowStore>
    static DEVICE_MEMBER void run(Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Operation& operation,
                                  const RowStore& row_store, const SplitK& split_k) {
        __shared__ Vector stage_memory[STAGES * STAGE_BYTES / 16];
        bf16* memory = reinterpret_cast<bf16*>(stage_memory);
        const BlockTile tile = block_tile();
        const int wave = threadIdx.x / WAVE, group = wave / SQUARES;
        const int row = wave / SQUARES_ALONG % SQUARES_ALONG * WAVE_SIDE, column = wave % SQUARES_ALONG * WAVE_SIDE;
        const int64_t first_row = tile.row * SIDE, first_column = tile.column * SIDE;
        const KRange range = k_range(K, STAGE_K);
        const int summed = row + column / WAVE_SIDE * ROW_SUMS * MMA_TILE;  // the first row of A that this wave sums
        const bool sums_rows = RowStore::POSSIBLE && tile.column == 0 && row_store.requested();
        const Out out = {reinterpret_cast<float*>(memory), split_k, tile, M, N};
        if (split_k.phase == ADD_SLICES) return out.add_slices(operation, row_store, sums_rows);
        TileLoader<SIDE, STAGE_K, A_K_CONTIGUOUS, MMA_THREADS, TileA> loader_a(a, first_row, M, range.first,
                                                                               range.last);
        TileLoader<SIDE, STAGE_K, B_K_CONTIGUOUS, MMA_THREADS, TileB> loader_b(b, first_column, N, range.first,
                                                                               range.last);
        Sum sums[EACH][EACH] = {}, row_sums[ROW_SUMS] = {};
        auto load_stage = [&](int stage) {
            bf16* stage_tiles = memory + stage % STAGES * (STAGE_BYTES / 2);
            if (stage < range.stages) {
                loader_a.load_stage(stage_tiles);
                loader_b.load_stage(stage_tiles + SIDE * STAGE_K);
            }
            copies_commit();
        };
#pragma unroll 1
        for (int stage = 0; stage < STAGES - 1; ++stage) load_stage(stage);
#pragma unroll 1
        for (int stage = 0; stage < range.stages; ++stage) {
            copies_wait<STAGES - 2>();
            __syncthreads();
            load_stage(stage + STAGES - 1);
            bf16 *tile_a = memory + stage % STAGES * (STAGE_BYTES / 2), *tile_b = tile_a + SIDE * STAGE_K;
#pragma unroll
            for (int k = 0; k < GROUP_K; k += MMA_TILE) {
                Mma::Operand left[EACH], right[EACH];
#pragma unroll
                for (int r = 0; r < EACH; ++r)
                    left[r] = load<A_K_CONTIGUOUS>(TileA{tile_a}, row + r * MMA_TILE, group * GROUP_K + k);
#pragma unroll
                for (int c = 0; c < EACH; ++c)
                    right[c] = load<B_K_CONTIGUOUS>(TileB{tile_b}, column + c * MMA_TILE, group * GROUP_K + k);
#pragma unroll
                for (int r = 0; r < EACH; ++r)
#pragma unroll
                    for (int c = 0; c < EACH; ++c) Mma::multiply(sums[r][c], left[r], right[c]);
                if constexpr (RowStore::POSSIBLE)
                    if (sums_rows)  // as a product with ones
#pragma unroll
                        for (int r = 0; r < ROW_SUMS; ++r)
                            Mma::multiply(
                                row_sums[r],
                                load<A_K_CONTIGUOUS>(TileA{tile_a}, summed + r * MMA_TILE, group * GROUP_K + k),
                                Mma::ones());
            }
        }
        if constexpr (RowStore::POSSIBLE)
            if (sums_rows) {
                __syncthreads();
#pragma unroll
                for (int r = 0; r < ROW_SUMS; ++r)
#pragma unroll
                    for (int e = 0; e < Mma::SIZE; ++e)
                        if (Mma::column(e) == 0)
                            out.shared[group * SIDE + summed + r * MMA_TILE + Mma::row(Mma::slot(e))] =
                                row_sums[r].value[e];
                __syncthreads();
                out.write_row_sums(row_store);
            }
#pragma unroll 1
        for (int first = 0; first < SIDE; first += WAVE_SIDE) {
            __syncthreads();
            if (row == first || GROUPS > 1)
#pragma unroll
                for (int r = 0; r < EACH; ++r)
#pragma unroll
                    for (int c = 0; c < EACH; ++c)
                        store_sum(out.shared, sums[r][c], group * WAVE_SIDE + r * MMA_TILE, column + c * MMA_TILE);
            __syncthreads();
            out.write(first, operation);
        }
    }

    // The operand whose rows i and k start at these multiples of MMA_TILE.
    template <bool K_CONTIGUOUS, class AnyTile>
    static DEVICE_MEMBER Mma::Operand load(const AnyTile& tile, int first_row, int first_k) {
        if constexpr (K_CONTIGUOUS)
            return Mma::load(tile, first_row, first_k);
        else
            return Mma::load_transposed(tile, first_row, first_k);
    }

    static DEVICE_MEMBER void store_sum(float* shared, const Sum& sum, int first_row, int first_column) {
#pragma unroll
        for (int e = 0; e < Mma::SIZE; ++e)
            shared[(first_row + Mma::row(Mma::slot(e))) * Out::ROW + first_column + Mma::column(e)] = sum.value[e];
    }
};

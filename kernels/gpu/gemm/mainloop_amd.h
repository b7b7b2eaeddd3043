// The GEMM by AMD's matrix units. GEMM_WAVES waves share a block tile of SIDE x SIDE. Two stages of K of both operands
// are in shared memory, where K is contiguous: while waves multiply one stage, the loads of the next are on their way to
// registers, and are stored in the other when all is multiplied. So a stage costs one barrier.
//
// The rows of B are the unit's i and the rows of A its j, so that a lane's sums are neighbours of a row of C. They go
// from registers through the fused operation to memory, without shared memory.
#pragma once
#include "gpu/amd/operand_loader.h"
#include "gpu/gemm/epilogue.h"

constexpr int SIDE = BLOCK_TILE, GEMM_THREADS = GEMM_WAVES * WAVE;
// The blocks that fit the LDS give each SIMD at least two waves, so a wave uses at most half of the SIMD's registers.
#define GEMM_KERNEL BOUNDED_KERNEL(GEMM_THREADS, 2)
constexpr bool ANY_SIZE = SIDE < 256;  // otherwise sizes are multiples of WIDTH and K is not cut: variants.py

// A_K_CONTIGUOUS, B_K_CONTIGUOUS: whether K is contiguous in memory, or the operand's rows are.
template <bool A_K_CONTIGUOUS, bool B_K_CONTIGUOUS>
struct Gemm {
    static constexpr int STAGE_K = SIDE < 128 ? 64 : 32, TILE = SIDE * STAGE_K;  // elements
    static constexpr int WAVE_COLUMNS = SIDE < 64    ? SEGMENT_ROWS
                                        : SIDE < 128 ? 32
                                                     : 64,
                         ALONG = SIDE / WAVE_COLUMNS, DOWN = GEMM_WAVES / ALONG, WAVE_ROWS = SIDE / DOWN;
    static constexpr int ROWS = WAVE_ROWS / 16, COLUMNS = WAVE_COLUMNS / 16;  // mma tiles of a wave
    static constexpr int SUMMED = ROWS < ALONG ? 1 : ROWS / ALONG;            // of which a wave sums the rows of A
    static constexpr int SEGMENTS = WAVE_COLUMNS / SEGMENT_ROWS;              // of a lane, along a row
    static_assert(ROWS * 16 * DOWN == SIDE, "");
    using Tile = OperandTile<STAGE_K>;
    using Out = Epilogue<SIDE, SIDE, 1, GEMM_THREADS, 1>;

    template <bool K_CONTIGUOUS, bool ARRANGED>
    struct Choice {
        using Loader = RowLoader<SIDE, STAGE_K, ARRANGED, GEMM_THREADS>;
    };
    template <bool ARRANGED>
    struct Choice<false, ARRANGED> {
        using Loader = TransposingLoader<SIDE, STAGE_K, ARRANGED, GEMM_THREADS>;
    };

    // C (M, N) = A (M, K) B (N, K)^T. operation, row_store: Fused and NoRowSums or AddRowSums of epilogue.h.
    template <class Operation, class RowStore>
    static DEVICE_MEMBER void run(Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Operation& operation,
                                  const RowStore& row_store, const SplitK& split_k) {
        __shared__ Vector stage_memory[2 * 2 * TILE / WIDTH];
        bf16* memory = reinterpret_cast<bf16*>(stage_memory);
        const BlockTile any = block_tile(), tile = {uniform(any.row), uniform(any.column)};
        const unsigned wave = threadIdx.x / WAVE, wave_row = wave / ALONG * WAVE_ROWS,
                       wave_column = wave % ALONG * WAVE_COLUMNS;
        const KRange range = k_range(K, STAGE_K);
        const unsigned summed = wave_row + wave % ALONG * SUMMED * 16;  // the first row of A that this wave sums
        const bool sums_rows = RowStore::POSSIBLE && tile.column == 0 && row_store.requested();
        const Out out = {nullptr, split_k, tile, M, N};
        if (ANY_SIZE && split_k.phase == ADD_SLICES) return out.add_slices(operation, row_store, sums_rows);
        const bool wave_sums = sums_rows && summed < wave_row + WAVE_ROWS;
        typename Choice<A_K_CONTIGUOUS, false>::Loader loader_a({a, tile.row * SIDE, M, range.first, range.last});
        typename Choice<B_K_CONTIGUOUS, true>::Loader loader_b({b, tile.column * SIDE, N, range.first, range.last});
        const bool aligned = loader_a.aligned() && loader_b.aligned();
        const int whole_stages = aligned ? static_cast<int>((range.last - range.first) / STAGE_K) : 0;
        auto put = [&](int stage, bf16* target) {
            if (stage < whole_stages) {
                loader_a.put(target);
                loader_b.put(target + TILE);
            } else if (stage < range.stages) {
                loader_a.copy(target);
                loader_b.copy(target + TILE);
            }
            loader_a.advance();
            loader_b.advance();
        };
        auto fetch = [&](int stage) {
            if (stage < whole_stages) {
                loader_a.fetch();
                loader_b.fetch();
            }
        };

        // where the lane's operands of the wave's first rows are
        const unsigned own = Tile::of_lane(), of_a = own ^ Tile::offset(wave_row, 0),
                       of_b = own ^ Tile::offset(wave_column, 0), of_summed = own ^ Tile::offset(summed, 0);
        Unit::Sum sums[ROWS][COLUMNS] = {}, row_sums[SUMMED] = {};
        fetch(0);
        put(0, memory);
        visit_in_turn(range.stages, [&](int stage, int odd) {
            __syncthreads();
            fetch(stage + 1);
            const bf16 *tile_a = memory + odd * 2 * TILE, *tile_b = tile_a + TILE;
#pragma unroll
            for (int k = 0; k < STAGE_K; k += Unit::STEP_K) {
                Unit::Operand left[ROWS], right[COLUMNS];
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) right[c] = Tile::load(tile_b, of_b, c * 16, k);
#pragma unroll
                for (int r = 0; r < ROWS; ++r) left[r] = Tile::load(tile_a, of_a, r * 16, k);
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
#pragma unroll
                    for (int c = 0; c < COLUMNS; ++c) Unit::multiply(sums[r][c], right[c], left[r]);
                if constexpr (RowStore::POSSIBLE)
                    if (wave_sums)  // as a product with ones
#pragma unroll
                        for (int r = 0; r < SUMMED; ++r)
                            Unit::multiply(row_sums[r], operand_of_ones(), Tile::load(tile_a, of_summed, r * 16, k));
            }
            put(stage + 1, memory + (1 - odd) * 2 * TILE);
        });
        if constexpr (RowStore::POSSIBLE)
            if (wave_sums) store_row_sums(out, row_store, row_sums, summed);
        if constexpr (ANY_SIZE) {
            if (split_k.phase == K_SLICES) return store_slice(out, sums, wave_row, wave_column);
            if (!is_wide(N)) return store<false>(out, operation, sums, wave_row, wave_column);
        }
        store<true>(out, operation, sums, wave_row, wave_column);
    }

    // The lane's segment of a row of mma tiles. s: which one along the row.
    static DEVICE_MEMBER Segment segment(const Unit::Sum (&row)[COLUMNS], int s) {
        Segment segment;
        for (int i = 0; i < WIDTH; ++i) segment.value[i] = row[s * TILES + i / Unit::SIZE][i % Unit::SIZE];
        return segment;
    }
    static DEVICE_MEMBER unsigned lane_row() { return lane_of_wave() % 16; }
    static DEVICE_MEMBER unsigned lane_column() { return lane_of_wave() / 16 * WIDTH; }

    static DEVICE_MEMBER void store_slice(const Out& out, const Unit::Sum (&sums)[ROWS][COLUMNS], unsigned wave_row,
                                          unsigned wave_column) {
        float* target = out.slice(blockIdx.z) + (wave_row + lane_row()) * SIDE + wave_column + lane_column();
#pragma unroll
        for (int r = 0; r < ROWS; ++r)
#pragma unroll
            for (int s = 0; s < SEGMENTS; ++s)
                ::store(target + r * 16 * SIDE + s * SEGMENT_ROWS, segment(sums[r], s).value);
    }

    // WIDE: N is a multiple of WIDTH; otherwise elements are stored one by one. Not all rows of mma tiles are unrolled:
    // a turn stores the first ones and moves the others up.
    template <bool WIDE, class Operation>
    static DEVICE_MEMBER void store(const Out& out, const Operation& operation, Unit::Sum (&sums)[ROWS][COLUMNS],
                                    unsigned wave_row, unsigned wave_column) {
        constexpr int TURN = !WIDE ? 1 : ROWS < 4 ? ROWS : 4, BATCH = TURN < 2 ? 1 : 2;
        const unsigned row = wave_row + lane_row(), column = wave_column + lane_column();
#pragma unroll 1
        for (int first = 0; first < ROWS; first += TURN) {
#pragma unroll
            for (int r = 0; r < TURN; r += BATCH)
                store_rows<WIDE, BATCH>(out, operation, &sums[r], row + (first + r) * 16, column);
#pragma unroll
            for (int r = TURN; r < ROWS; ++r)
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) sums[r - TURN][c] = sums[r][c];
        }
    }
    template <bool WIDE, int COUNT, class Operation>
    static DEVICE_MEMBER void store_rows(const Out& out, const Operation& operation, const Unit::Sum (*rows)[COLUMNS],
                                         unsigned row, unsigned column) {
        decltype(out.template fetch<WIDE>(0, 0, operation)) fetched[COUNT][SEGMENTS];
#pragma unroll
        for (int r = 0; r < COUNT; ++r)
#pragma unroll
            for (int s = 0; s < SEGMENTS; ++s)
                fetched[r][s] = out.template fetch<WIDE>(row + r * 16, column + s * SEGMENT_ROWS, operation);
#pragma unroll
        for (int r = 0; r < COUNT; ++r)
#pragma unroll
            for (int s = 0; s < SEGMENTS; ++s) {
                Segment sums = segment(rows[r], s);
                out.template store<WIDE>(row + r * 16, column + s * SEGMENT_ROWS, sums, fetched[r][s], operation);
            }
    }

    template <class RowStore>
    static DEVICE_MEMBER void store_row_sums(const Out& out, const RowStore& row_store,
                                             const Unit::Sum (&row_sums)[SUMMED], unsigned summed) {
        if (lane_of_wave() >= 16) return;
#pragma unroll
        for (int r = 0; r < SUMMED; ++r) {
            const unsigned row = summed + r * 16 + lane_row();
            if (out.split_k.phase == K_SLICES)
                out.slice(blockIdx.z)[SIDE * SIDE + row] = row_sums[r][0];
            else if (out.tile.row * SIDE + row < out.M)
                row_store(out.tile.row * SIDE + row, row_sums[r][0]);
        }
    }
};

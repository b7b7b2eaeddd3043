// A product by fragments. WAVES waves share a piece of SIDE x SIDE; DEPTH terms of both operands are a stage in shared memory,
// and STAGES of them are under way, so that copies run beside the products. With SIDE 32, each wave makes the whole piece from
// its share of the terms. Needs no more than 48 KiB of shared memory.
#pragma once
#include "pieces.h"
#include "fragment.h"
#include "side.h"

constexpr int WAVES = 4, THREADS = WAVES * WAVE, STAGE_BYTES = 16 << 10;

// A_ALONG, B_ALONG: see Copier.
template <bool A_ALONG, bool B_ALONG>
struct Product {
    static constexpr int DEPTH = STAGE_BYTES / 4 / SIDE;
    // a wave's part of the piece; waves beyond those that fill it form further groups, which share the terms
    static constexpr int PART_ROWS = SIDE == 128 ? 64 : 32, PART_COLUMNS = PART_ROWS, PARTS_ALONG = SIDE / PART_COLUMNS;
    static constexpr int PARTS = SIDE / PART_ROWS * PARTS_ALONG, GROUPS = WAVES / PARTS, TERMS = DEPTH / GROUPS;
    static constexpr int DOWN = PART_ROWS / SQUARE, ALONG = PART_COLUMNS / SQUARE;
    static constexpr int ROW_SUMS = DOWN / PARTS_ALONG;  // squares of which a wave sums the rows
    using TileA = Tile<(A_ALONG ? DEPTH : SIDE) / WIDTH>;
    using TileB = Tile<(B_ALONG ? DEPTH : SIDE) / WIDTH>;
    using Out = Outgoing<SIDE, PART_ROWS, GROUPS, THREADS, Fragment::ROOMY ? 4 : 2>;
    using Sum = Fragment::Sum;

    // epilogue, row_store, parts: see Outgoing.
    template <class Finish, class RowStore>
    static DEVICE_MEMBER void run(Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Finish& epilogue,
                                  const RowStore& row_store, const Parts& parts) {
        __shared__ Words stage_memory[STAGES * STAGE_BYTES / 16];
        bf16* memory = reinterpret_cast<bf16*>(stage_memory);
        const Place place = place_of_block();
        const int wave = threadIdx.x / WAVE, group = wave / PARTS;
        const int row = wave / PARTS_ALONG % (SIDE / PART_ROWS) * PART_ROWS, column = wave % PARTS_ALONG * PART_COLUMNS;
        const int64_t first_row = place.row * SIDE, first_column = place.column * SIDE;
        const Terms terms = terms_of_block(K, DEPTH);
        const int summed = row + column / PART_COLUMNS * ROW_SUMS * SQUARE;
        const bool sums_rows = RowStore::POSSIBLE && place.column == 0 && row_store.wanted();
        const Out out = {reinterpret_cast<float*>(memory), parts, place, M, N};
        if (parts.phase == ADDING) return out.add_parts(epilogue, row_store, sums_rows);
        Copier<SIDE, DEPTH, A_ALONG, THREADS, TileA> copier_a(a, first_row, M, terms.first, terms.last);
        Copier<SIDE, DEPTH, B_ALONG, THREADS, TileB> copier_b(b, first_column, N, terms.first, terms.last);
        Sum sums[DOWN][ALONG] = {}, row_sums[ROW_SUMS] = {};
        auto copy_stage = [&](int stage) {
            bf16* tile = memory + stage % STAGES * (STAGE_BYTES / 2);
            if (stage < terms.stages) {
                copier_a.copy_stage(tile);
                copier_b.copy_stage(tile + SIDE * DEPTH);
            }
            copies_commit();
        };
#pragma unroll 1
        for (int stage = 0; stage < STAGES - 1; ++stage) copy_stage(stage);
#pragma unroll 1
        for (int stage = 0; stage < terms.stages; ++stage) {
            copies_wait<STAGES - 2>();
            __syncthreads();
            copy_stage(stage + STAGES - 1);
            bf16 *tile_a = memory + stage % STAGES * (STAGE_BYTES / 2), *tile_b = tile_a + SIDE * DEPTH;
#pragma unroll
            for (int k = 0; k < TERMS; k += SQUARE) {
                Fragment::Operand left[DOWN], right[ALONG];
#pragma unroll
                for (int r = 0; r < DOWN; ++r) left[r] = load<A_ALONG>(TileA{tile_a}, row + r * SQUARE, group * TERMS + k);
#pragma unroll
                for (int c = 0; c < ALONG; ++c) right[c] = load<B_ALONG>(TileB{tile_b}, column + c * SQUARE, group * TERMS + k);
#pragma unroll
                for (int r = 0; r < DOWN; ++r)
#pragma unroll
                    for (int c = 0; c < ALONG; ++c) Fragment::multiply(sums[r][c], left[r], right[c]);
                if constexpr (RowStore::POSSIBLE)
                    if (sums_rows)
#pragma unroll
                        for (int r = 0; r < ROW_SUMS; ++r)
                            Fragment::multiply(row_sums[r], load<A_ALONG>(TileA{tile_a}, summed + r * SQUARE, group * TERMS + k),
                                               Fragment::ones());
            }
        }
        if constexpr (RowStore::POSSIBLE)
            if (sums_rows) {
                __syncthreads();
#pragma unroll
                for (int r = 0; r < ROW_SUMS; ++r)
#pragma unroll
                    for (int e = 0; e < Fragment::SIZE; ++e)
                        if (Fragment::column(e) == 0)
                            out.shared[group * SIDE + summed + r * SQUARE + Fragment::row(Fragment::slot(e))] =
                                row_sums[r].value[e];
                __syncthreads();
                out.write_row_sums(row_store);
            }
#pragma unroll 1
        for (int first = 0; first < SIDE; first += PART_ROWS) {
            __syncthreads();
            if (row == first || GROUPS > 1)
#pragma unroll
                for (int r = 0; r < DOWN; ++r)
#pragma unroll
                    for (int c = 0; c < ALONG; ++c)
                        spread(out.shared, sums[r][c], group * PART_ROWS + r * SQUARE, column + c * SQUARE);
            __syncthreads();
            out.write(first, epilogue);
        }
    }

    static_assert(Out::BYTES <= STAGES * STAGE_BYTES, "");

    // Element (i, k) of an operand, i and k from a multiple of 16 on.
    template <bool ALONG_TERMS, class AnyTile>
    static DEVICE_MEMBER Fragment::Operand load(const AnyTile& tile, int first_row, int first_term) {
        if constexpr (ALONG_TERMS)
            return Fragment::load(tile, first_row, first_term);
        else
            return Fragment::load_transposed(tile, first_row, first_term);
    }

    static DEVICE_MEMBER void spread(float* shared, const Sum& sum, int first_row, int first_column) {
#pragma unroll
        for (int e = 0; e < Fragment::SIZE; ++e)
            shared[(first_row + Fragment::row(Fragment::slot(e))) * Out::ROW + first_column + Fragment::column(e)] = sum.value[e];
    }
};

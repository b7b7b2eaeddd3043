// Products of any size on all threads: C (M, N) = A (M, K) B (K, N), given by their strides, or A by its left_of. B is packed
// into panels of PANEL columns, so that the innermost loop reads it in order; a register tile holds ROWS x PANEL sums over K, or
// as many terms of it as the caches have room for. Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication".
// product.h is the tile: plain.h, or what the processor has beyond. What becomes of the sums is the op's `finish`.
// A thread owns whole tiles of C, and each sum runs over k upwards: no result depends on the number of threads.
#pragma once
#include "cpu/gemm/matrix.h"
#include "cpu/runtime/parallel.h"
#include "cpu/simd/vector.h"
#include "cpu/select/gemm_tile.h"
#include <memory>

// What is packed of A and B at a time shall stay in the second cache, of B RIGHT_WORDS; sums of a PATCH, in the first. More terms
// than MOST_TERMS are summed in turns, BLOCK_ROWS by BLOCK_COLUMNS sums at a time.
constexpr int64_t MOST_TERMS = PARTS > 1 ? 512 : 1024;
constexpr int64_t BLOCK_ROWS = 512 / ROWS * ROWS, BLOCK_COLUMNS = 256, LEFT_ROWS = 96, PATCH = 128;
constexpr int64_t RIGHT_WORDS = 1 << 18;
static_assert(BLOCK_COLUMNS / PANEL * panel_size(MOST_TERMS) <= RIGHT_WORDS && LEFT_ROWS % ROWS == 0);

// A thread's own memory, kept from product to product.
struct Workspace {
    alignas(64) Word left[left_size(LEFT_ROWS, MOST_TERMS)], right[RIGHT_WORDS];
    alignas(64) float sums[BLOCK_ROWS * BLOCK_COLUMNS];
};
static thread_local std::unique_ptr<Workspace> workspace;

// A[row:row + rows, k:k + terms] of a product as a tile reads it, in place or copied.
inline Left left_of(const Matrix& a, Word* copy, int64_t row, int64_t rows, int64_t k, int64_t terms) {
    return pack_left(copy, {a.at(row, k), a.row_stride, a.column_stride, a.strip_gap}, rows, terms);
}

// sums (rows, columns), `stride` apart, = or += left (rows, terms) times the packed B; where `ends`, all terms are in them and
// finish(row, column, sums, count) takes each row by PATCH columns. With a stride of PATCH there is room for one strip's patch.
template <class Finish>
static void multiply_rows(Workspace& work, float* sums, int64_t stride, Left left, int64_t rows, int64_t columns,
                          int64_t terms, bool goes_on, bool ends, const Finish& finish) {
    for (int64_t row = 0; row < rows; row += ROWS, left.data += left.strip_stride) {
        const int64_t height = std::min<int64_t>(ROWS, rows - row);
        for (int64_t column = 0; column < columns; column += PATCH) {
            const int64_t width = std::min(PATCH, columns - column);
            float* const patch = stride == PATCH ? sums : sums + row * stride + column;
            const Word* const panels = work.right + column / PANEL * panel_size(terms);
            multiply(left, panels, panel_size(terms), patch, stride, height, width, terms, goes_on);
            for (int64_t i = 0; ends && i < height; ++i) finish(row + i, column, patch + i * stride, width);
        }
    }
}

// Calls finish(row, column, sums, count) for all of C[begin_row:end_row, begin_column:end_column].
template <class Rows = Matrix, class Finish>
static void product_block(int64_t begin_row, int64_t end_row, int64_t begin_column, int64_t end_column, int64_t K,
                          const Rows& a, Matrix b, const Finish& finish) {
    if (!workspace) workspace.reset(new Workspace);
    Workspace& work = *workspace;
    begin_tiles();
    const bool in_turns = K > MOST_TERMS;
    const int64_t all_rows = end_row - begin_row, blocks = in_turns ? (all_rows + BLOCK_ROWS - 1) / BLOCK_ROWS : 1;
    const int64_t block_rows = padded((all_rows + blocks - 1) / blocks, ROWS), stride = in_turns ? BLOCK_COLUMNS : PATCH;
    const int64_t block_columns = in_turns ? BLOCK_COLUMNS : RIGHT_WORDS / panel_size(K) * PANEL;
    for (int64_t column = begin_column; column < end_column; column += block_columns)
        for (int64_t row = begin_row; row < end_row; row += block_rows)
            for (int64_t k = 0; k < K; k += MOST_TERMS) {
                const int64_t terms = std::min(K - k, MOST_TERMS), columns = std::min(block_columns, end_column - column);
                const int64_t last_row = std::min(row + block_rows, end_row);
                pack_right(work.right, {b.at(k, column), b.row_stride, b.column_stride}, terms, columns);
                for (int64_t top = row; top < last_row; top += LEFT_ROWS) {
                    float* const sums = in_turns ? work.sums + (top - row) * stride : work.sums;
                    const int64_t rows = std::min(LEFT_ROWS, last_row - top);
                    const Left left = left_of(a, work.left, top, rows, k, terms);
                    multiply_rows(work, sums, stride, left, rows, columns, terms, k > 0, k + terms == K,
                                  [&](int64_t i, int64_t j, const float* values, int64_t count) {
                                      finish(top + i, column + j, values, count);
                                  });
                }
            }
}

// The same on all threads, split along the longer side of C.
template <class Rows = Matrix, class Finish>
static void product(int64_t M, int64_t N, int64_t K, const Rows& a, Matrix b, const Finish& finish) {
    const int64_t smallest = std::max<int64_t>(1, 200000 / (std::min(M, N) * K));
    if (M >= N)
        parallel_ranges(M, smallest, ROWS, [=](int64_t begin, int64_t end) {
            product_block(begin, end, 0, N, K, a, b, finish);
        });
    else
        parallel_ranges(N, smallest, PANEL, [=](int64_t begin, int64_t end) {
            product_block(0, M, begin, end, K, a, b, finish);
        });
}

// sums (M, N) += A B, in f32.
template <class Rows = Matrix>
static void add_product(float* sums, int64_t M, int64_t N, int64_t K, const Rows& a, Matrix b) {
    product(M, N, K, a, b, [=](int64_t row, int64_t column, const float* values, int64_t count) {
        float* out = sums + row * N + column;
        for (int64_t i = 0; i < count; ++i) out[i] += values[i];
    });
}

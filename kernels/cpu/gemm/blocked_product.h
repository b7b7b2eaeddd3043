// GEMM of any size on all threads: C (M, N) = A (M, K) B (K, N).
//
//   for MC x KC of A, KC x NC of B:          packed, so that the innermost loops read memory in order
//       for MR rows of A, NR columns of B:   a register tile of MR x NR sums over KC terms (select/gemm_tile.h)
//   epilogue(row, column, sums, count)       writes C: the op decides how
//
// A thread owns whole tiles of C, and each sum runs over k upwards, so no result depends on the number of threads.
// Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication".
#pragma once
#include "cpu/gemm/matrix.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/gemm_tile.h"
#include "cpu/simd/vector.h"
#include <memory>

// MC x KC of A and KC x NC of B stay in L2, where NC is as many columns as PACKED_B_WORDS hold; the sums that an
// epilogue takes stay in L1. A GEMM with K > KC makes SUM_ROWS x SUM_COLUMNS sums in several passes over KC terms.
constexpr int64_t KC = SPLITS > 1 ? 512 : 1024, MC = 96, PACKED_B_WORDS = 1 << 18;
constexpr int64_t SUM_ROWS = 512 / MR * MR, SUM_COLUMNS = 256, EPILOGUE_COLUMNS = 128;
static_assert(SUM_COLUMNS / NR * b_panel_size(KC) <= PACKED_B_WORDS && MC % MR == 0);

struct Workspace {
    alignas(64) PackedWord packed_a[packed_a_size(MC, KC)], packed_b[PACKED_B_WORDS];
    alignas(64) float sums[SUM_ROWS * SUM_COLUMNS];
};

// Returns this thread's memory, which all its GEMMs use.
static Workspace& begin_gemm() {
    static thread_local std::unique_ptr<Workspace> workspace;
    if (!workspace) workspace.reset(new Workspace);
    begin_tiles();
    return *workspace;
}

// A[row:row + rows, k:k + terms] as the tile reads it: in place, or packed into `copy`.
inline PackedA pack_a_block(const Matrix& a, PackedWord* copy, int64_t row, int64_t rows, int64_t k, int64_t terms) {
    return pack_a(copy, {a.at(row, k), a.row_stride, a.column_stride, a.panel_gap}, rows, terms);
}

// sums (rows, columns), rows `stride` apart, = or += A (rows, terms) times the packed B. If `last_k`, the sums are
// complete, and epilogue(row, column, sums, count) takes each row, EPILOGUE_COLUMNS at once. With a stride of
// EPILOGUE_COLUMNS, `sums` has room for one A micro-panel's sums only.
template <class Epilogue>
static void multiply_a_block(Workspace& work, float* sums, int64_t stride, PackedA a, int64_t rows, int64_t columns,
                             int64_t terms, bool accumulate, bool last_k, const Epilogue& epilogue) {
    for (int64_t row = 0; row < rows; row += MR, a.data += a.panel_stride) {
        const int64_t height = std::min<int64_t>(MR, rows - row);
        for (int64_t column = 0; column < columns; column += EPILOGUE_COLUMNS) {
            const int64_t width = std::min(EPILOGUE_COLUMNS, columns - column);
            float* const some = stride == EPILOGUE_COLUMNS ? sums : sums + row * stride + column;
            const PackedWord* const b_panels = work.packed_b + column / NR * b_panel_size(terms);
            multiply(a, b_panels, b_panel_size(terms), some, stride, height, width, terms, accumulate);
            for (int64_t i = 0; last_k && i < height; ++i) epilogue(row + i, column, some + i * stride, width);
        }
    }
}

// Calls epilogue(row, column, sums, count) for all of C[begin_row:end_row, begin_column:end_column], on this thread.
template <class Epilogue>
static void gemm_block(int64_t begin_row, int64_t end_row, int64_t begin_column, int64_t end_column, int64_t K,
                       Matrix a, Matrix b, const Epilogue& epilogue) {
    Workspace& work = begin_gemm();
    const bool several_passes = K > KC;
    const int64_t all_rows = end_row - begin_row;
    const int64_t blocks = several_passes ? (all_rows + SUM_ROWS - 1) / SUM_ROWS : 1;
    const int64_t block_rows = padded((all_rows + blocks - 1) / blocks, MR);
    const int64_t stride = several_passes ? SUM_COLUMNS : EPILOGUE_COLUMNS;
    const int64_t NC = several_passes ? SUM_COLUMNS : PACKED_B_WORDS / b_panel_size(K) * NR;
    for (int64_t column = begin_column; column < end_column; column += NC)
        for (int64_t row = begin_row; row < end_row; row += block_rows)
            for (int64_t k = 0; k < K; k += KC) {
                const int64_t terms = std::min(K - k, KC), columns = std::min(NC, end_column - column);
                const int64_t last_row = std::min(row + block_rows, end_row);
                pack_b(work.packed_b, {b.at(k, column), b.row_stride, b.column_stride}, terms, columns);
                for (int64_t top = row; top < last_row; top += MC) {
                    float* const sums = several_passes ? work.sums + (top - row) * stride : work.sums;
                    const int64_t rows = std::min(MC, last_row - top);
                    const PackedA packed_a = pack_a_block(a, work.packed_a, top, rows, k, terms);
                    multiply_a_block(work, sums, stride, packed_a, rows, columns, terms, k > 0, k + terms == K,
                                     [&](int64_t i, int64_t j, const float* values, int64_t count) {
                                         epilogue(top + i, column + j, values, count);
                                     });
                }
            }
}

// Calls block(begin_row, end_row, begin_column, end_column) for parts of C on all threads, split along its longer side.
template <class Block>
static void split_output(int64_t M, int64_t N, int64_t K, const Block& block) {
    const int64_t worth = std::max<int64_t>(1, 200000 / (std::min(M, N) * K));
    if (M >= N)
        parallel_ranges(M, worth, MR, [=](int64_t begin, int64_t end) { block(begin, end, 0, N); });
    else
        parallel_ranges(N, worth, NR, [=](int64_t begin, int64_t end) { block(0, M, begin, end); });
}

// Calls epilogue(row, column, sums, count) for all of C on all threads.
template <class Epilogue>
static void gemm(int64_t M, int64_t N, int64_t K, Matrix a, Matrix b, const Epilogue& epilogue) {
    split_output(M, N, K, [=](int64_t begin_row, int64_t end_row, int64_t begin_column, int64_t end_column) {
        gemm_block(begin_row, end_row, begin_column, end_column, K, a, b, epilogue);
    });
}

// sums (M, N) += A (M, K) B (K, N) in f32, on all threads. B is a Matrix, A a Matrix or a DualOperand.
//
// The register tile adds to `sums` in place. So a GEMM with K > KC needs no sums of its own between its passes over K,
// as blocked_product.h does, and the passes may be short enough for a B micro-panel to stay in L1.
#pragma once
#include "cpu/gemm/blocked_product.h"

// Terms of a pass over a Matrix. A DualOperand is read in place: more passes would only load and store more sums.
template <class A>
constexpr int64_t PASS_TERMS = KC;
template <>
constexpr int64_t PASS_TERMS<Matrix> = std::min(KC, ACCUMULATED_TERMS);

// sums (rows, columns), rows `stride` apart, += A (rows, terms) times the packed B. Tiles that the edge of C cuts are
// computed in the workspace.
static void accumulate_a_block(Workspace& work, float* sums, int64_t stride, PackedA a, int64_t rows, int64_t columns,
                               int64_t terms) {
    for (int64_t row = 0; row < rows; row += MR, a.data += a.panel_stride) {
        const int64_t height = std::min<int64_t>(MR, rows - row), whole = height == MR ? columns / NR * NR : 0;
        float* const row_sums = sums + row * stride;
        multiply(a, work.packed_b, b_panel_size(terms), row_sums, stride, MR, whole, terms, true);
        for (int64_t column = whole; column < columns; column += NR) {
            const PackedWord* const b_panel = work.packed_b + column / NR * b_panel_size(terms);
            multiply(a, b_panel, b_panel_size(terms), work.sums, NR, height, NR, terms, false);
            for (int64_t i = 0; i < height; ++i)
                for (int64_t j = 0; j < std::min<int64_t>(NR, columns - column); ++j)
                    row_sums[i * stride + column + j] += work.sums[i * NR + j];
        }
    }
}

// sums[begin_row:end_row, begin_column:end_column] += the same part of A B, on this thread.
template <class A>
static void accumulate_block(float* sums, int64_t N, int64_t begin_row, int64_t end_row, int64_t begin_column,
                             int64_t end_column, int64_t K, const A& a, Matrix b) {
    Workspace& work = begin_gemm();
    const int64_t most_terms = PASS_TERMS<A>, NC = PACKED_B_WORDS / b_panel_size(std::min(K, most_terms)) * NR;
    for (int64_t column = begin_column; column < end_column; column += NC)
        for (int64_t k = 0; k < K; k += most_terms) {
            const int64_t terms = std::min(K - k, most_terms), columns = std::min(NC, end_column - column);
            pack_b(work.packed_b, {b.at(k, column), b.row_stride, b.column_stride}, terms, columns);
            for (int64_t row = begin_row; row < end_row; row += MC) {
                const int64_t rows = std::min(MC, end_row - row);
                const PackedA packed_a = pack_a_block(a, work.packed_a, row, rows, k, terms);
                accumulate_a_block(work, sums + row * N + column, N, packed_a, rows, columns, terms);
            }
        }
}

template <class A = Matrix>
static void gemm_accumulate(float* sums, int64_t M, int64_t N, int64_t K, const A& a, Matrix b) {
    split_output(M, N, K, [=](int64_t begin_row, int64_t end_row, int64_t begin_column, int64_t end_column) {
        accumulate_block(sums, N, begin_row, end_row, begin_column, end_column, K, a, b);
    });
}

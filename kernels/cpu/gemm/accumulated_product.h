// sums (M, N) += A (M, K) B (K, N) in f32, on all threads. B is a Matrix, A a Matrix or a DualOperand.
#pragma once
#include "cpu/gemm/blocked_product.h"

// Terms of a pass over a Matrix. A DualOperand is read in place: more passes would only load and store more sums.
template <class A>
constexpr int64_t PASS_TERMS = KC;
template <>
constexpr int64_t PASS_TERMS<Matrix> = std::min(KC, ACCUMULATED_TERMS);

// sums, rows `stride` apart, += A times B. Tiles that the edge of C cuts are computed in the workspace.
static void accumulate_block(Workspace& work, float* sums, int64_t stride, const PackedBlock& block) {
    PackedA a = block.a;
    const int64_t panel_size = b_panel_size(block.terms);
    for (int64_t row = 0; row < block.rows; row += MR, a.data += a.panel_stride) {
        const int64_t height = std::min<int64_t>(MR, block.rows - row);
        const int64_t whole = height == MR ? block.columns / NR * NR : 0;
        float* const row_sums = sums + (block.row + row) * stride + block.column;
        multiply(a, block.b, panel_size, row_sums, stride, MR, whole, block.terms, true);
        for (int64_t column = whole; column < block.columns; column += NR) {
            const PackedWord* const b_panel = block.b + column / NR * panel_size;
            const int64_t width = std::min<int64_t>(NR, block.columns - column);
            multiply(a, b_panel, panel_size, work.sums, NR, height, width, block.terms, false);
            for (int64_t i = 0; i < height; ++i)
                for (int64_t j = 0; j < width; ++j) row_sums[i * stride + column + j] += work.sums[i * NR + j];
        }
    }
}

// The vector tiles sum the terms of a pass in registers, then add to `sums` in place. So a GEMM with K > KC needs no
// other sums between its passes, and a pass may be short enough for a B micro-panel to stay in L1. AMX would add each
// product to the sum in memory, which loses digits if that is large.
//
// also(block) is called once for every block of A, after it was packed and while it is in the caches. For the same rows,
// terms come in ascending order.
template <class A, class Also>
static void gemm_accumulate(float* sums, int64_t M, int64_t N, int64_t K, const A& a, Matrix b, const Also& also) {
    if constexpr (SUMS_IN_REGISTERS) {
        const int64_t terms = PASS_TERMS<A>, columns = PACKED_B_WORDS / b_panel_size(std::min(K, terms)) * NR;
        const auto add = [=](Workspace& work, const PackedBlock& block) {
            if (block.column == 0) also(block);
            accumulate_block(work, sums, N, block);
        };
        for_packed_blocks(M, N, K, {terms, columns, M}, a, b, add);
    } else {
        const auto add = [=](int64_t row, int64_t column, const float* values, int64_t count) {
            float* out = sums + row * N + column;
            for (int64_t i = 0; i < count; ++i) out[i] += values[i];
        };
        gemm(M, N, K, a, b, add, also);
    }
}

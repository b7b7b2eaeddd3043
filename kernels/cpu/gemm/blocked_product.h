// GEMM of any size on all threads: C (M, N) = A (M, K) B (K, N), and epilogue(row, column, sums, count) writes C: the op
// decides how.
#pragma once
#include "cpu/gemm/packed_blocks.h"

constexpr int64_t EPILOGUE_COLUMNS = 128;  // sums that an epilogue takes at once stay in L1

// sums (rows, columns), rows `stride` apart, = or += A times B. If the block has the last of K terms, the sums are
// complete, and the epilogue takes each row, EPILOGUE_COLUMNS at once. With a stride of EPILOGUE_COLUMNS, `sums` has
// room for one A micro-panel's sums only.
template <class Epilogue>
static void multiply_block(float* sums, int64_t stride, const PackedBlock& block, bool last_k,
                           const Epilogue& epilogue) {
    PackedA a = block.a;
    for (int64_t row = 0; row < block.rows; row += MR, a.data += a.panel_stride) {
        const int64_t height = std::min<int64_t>(MR, block.rows - row);
        for (int64_t column = 0; column < block.columns; column += EPILOGUE_COLUMNS) {
            const int64_t width = std::min(EPILOGUE_COLUMNS, block.columns - column);
            float* const some = stride == EPILOGUE_COLUMNS ? sums : sums + row * stride + column;
            const PackedWord* const b_panels = block.b + column / NR * b_panel_size(block.terms);
            multiply(a, b_panels, b_panel_size(block.terms), some, stride, height, width, block.terms, block.k > 0);
            for (int64_t i = 0; last_k && i < height; ++i)
                epilogue(block.row + row + i, block.column + column, some + i * stride, width);
        }
    }
}

// also(block): see gemm_accumulate.
template <class A, class Epilogue, class Also>
static void gemm(int64_t M, int64_t N, int64_t K, const A& a, Matrix b, const Epilogue& epilogue, const Also& also) {
    const bool several_passes = K > MOST_TERMS_OF_ONE_PASS;
    const int64_t stride = several_passes ? SUM_COLUMNS : EPILOGUE_COLUMNS;
    const BlockSizes sizes = several_passes ? BlockSizes{KC, SUM_COLUMNS, SUM_ROWS}
                                            : BlockSizes{K, PACKED_B_WORDS / b_panel_size(K) * NR, M};
    for_packed_blocks(M, N, K, sizes, a, b, [=](Workspace& work, const PackedBlock& block) {
        if (block.column == 0) also(block);
        float* const sums = several_passes ? block.sums : work.sums;
        multiply_block(sums, stride, block, block.k + block.terms == K, epilogue);
    });
}

template <class Epilogue>
static void gemm(int64_t M, int64_t N, int64_t K, Matrix a, Matrix b, const Epilogue& epilogue) {
    gemm(M, N, K, a, b, epilogue, NothingElse());
}

// The register tile of a GEMM by vectors: MR x NR sums, two vectors of B a row, or at the edge of C one. The including file
// defines MR, K_STEP, WordSource, b_panel_size, has_words and add_products first.
#pragma once
#include "cpu/gemm/pack.h"
#include <algorithm>
#include <cstring>

// Rows of A that one pointer reaches by multiples of the row stride. With 12, the strides need more registers than there
// are, and GCC keeps them in vector registers.
constexpr int UPPER_ROWS = 6;
// How far A in blocks is prefetched: it comes from L3 or memory, and hardware does not foresee its strides.
constexpr int64_t PREFETCHED_BYTES = 3072;
constexpr bool SUMS_IN_REGISTERS = true;
// So many terms of A^T at most are read in place. Each is in a line of its own, which comes from L2 for every B micro-panel:
// a step of 24 multiplications by AVX-512 hides that, a shorter step does not if there are more lines.
constexpr int64_t TRANSPOSED_TERMS = LANES == 16 && WORD_TERMS == 1 ? 256 : 64;
// Packed, a B micro-panel of so many terms takes 16 KB, half of an L1.
constexpr int64_t ACCUMULATED_TERMS = std::max<int64_t>(TRANSPOSED_TERMS, 4096 / NR * WORD_TERMS);

// A thread calls this before its first tile.
inline void begin_tiles() {}

// The packed words of an A micro-panel of K terms, and A[0:rows, 0:K] packed into `copy`.
constexpr int64_t a_panel_size(int64_t K) { return b_panel_size(K) / NR * MR + padded(MR) - MR; }
__attribute__((noinline)) static PackedA copy_a(PackedWord* copy, Matrix a, int64_t rows, int64_t K) {
    pack_micro_panels(copy, MR, a_panel_size(K), WordSource{a, rows, K}, rows, b_panel_size(K) / NR);
    return {reinterpret_cast<const char*>(copy), 4, MR * 4, a_panel_size(K) * 4};
}

// The tile reads A in place, unless its rows share a set of L1: there are 64 sets, many of 8 lines.
inline bool reads_in_place(const Matrix& a, int64_t /*rows*/, int64_t K, int64_t /*columns*/) {
    constexpr int64_t SET_BYTES = 64 * 64, SET_LINES = 8;
    const bool share_a_set = MR > SET_LINES && a.row_stride * int64_t{sizeof(act)} % SET_BYTES == 0;
    const bool few_terms = a.row_stride == 1 && K <= TRANSPOSED_TERMS;
    return has_words(a, K) && (a.column_stride == 1 ? !share_a_set : few_terms);
}
inline PackedA a_in_place(const Matrix& a) {
    constexpr int64_t SIZE = sizeof(act), STEP = K_STEP * SIZE;
    return {reinterpret_cast<const char*>(a.data), a.row_stride * SIZE, a.column_stride * STEP,
            MR * a.row_stride * SIZE};
}

// sums (R, VECTORS * LANES) = A times the first columns of a B micro-panel, or += if `accumulate`.
template <int R, int VECTORS>
void tile(int64_t K, const PackedA& a, const PackedWord* b_panel, float* sums, int64_t stride, bool accumulate) {
    Vector values[R][VECTORS] = {};
    const char* block = a.data;
    const int64_t row_stride = a.row_stride, step_stride = a.step_stride, steps = (K + K_STEP - 1) / K_STEP;
    for (int64_t first = 0; first < steps; first += a.block_steps, block += a.block_stride) {
        const char *upper = block, *lower = block + UPPER_ROWS * row_stride;
        const PackedWord* const end = b_panel + std::min(steps - first, a.block_steps) * NR;
        for (int64_t line = 0; a.block_stride > 0 && line < R * NR * 4; line += 64)
            __builtin_prefetch(block + PREFETCHED_BYTES + line);
        for (; b_panel < end; b_panel += NR, upper += step_stride, lower += step_stride) {
            const Vector left = vector_at(b_panel), right = vector_at(b_panel + (VECTORS - 1) * LANES);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const char* const rows = r < UPPER_ROWS ? upper : lower;
                PackedWord word;
                memcpy(&word, rows + r % UPPER_ROWS * row_stride, sizeof word);
                values[r][0] = add_products(values[r][0], word, left);
                if (VECTORS > 1) values[r][VECTORS - 1] = add_products(values[r][VECTORS - 1], word, right);
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int half = 0; half < VECTORS; ++half) {
            Vector& sum = vector_at(sums + r * stride + half * LANES);
            sum = accumulate ? sum + values[r][half] : values[r][half];
        }
}
#include "cpu/gemm/tile_rows.h"
#include "cpu/gemm/macro_kernel.h"

// The register tile of a GEMM in f32, by the compiler's vectors: MR x NR sums.
#pragma once
#include "cpu/simd/vector.h"
#include <algorithm>
#include <type_traits>

// MR * 2 sums, 2 vectors of B and one of A fill the registers: 32 with AVX-512 and on aarch64, otherwise 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MR = 12;
#else
constexpr int MR = 6;
#endif
// Rows of A that one pointer reaches by multiples of the row stride. With 12, the strides need more registers than there
// are, and GCC keeps them in vector registers.
constexpr int UPPER_ROWS = 6;
constexpr int64_t K_STEP = 1, TILE_K = 1 << 20;  // terms of a step; the most terms of a tile: no limit
constexpr int NR = 2 * LANES, WORD_TERMS = 1, SPLITS = 1;
constexpr bool SUMS_IN_REGISTERS = true;
constexpr int64_t ACCUMULATED_TERMS = 4096 / NR;  // a B micro-panel of so many takes 16 KB, half of an L1
#include "cpu/gemm/pack.h"

// A matrix (lines, terms) as packed words; activations in bf16 become f32.
struct WordSource : LineSource {
    template <bool INTERIOR>
    WordVector words_of_line(int64_t line, int64_t word) const {
        return {{terms_of_line<INTERIOR>(line, word)}};
    }
    template <bool INTERIOR>
    WordVector word_of_lines(int64_t line, int64_t word) const {
        return {{lines_of_term<INTERIOR>(line, word)}};
    }
};

// A word has one term, x; pack_bf16.h says what these two mean where it has two.
constexpr int TERM_DISTANCE = 1;
inline WordVector words_from_terms(Vector x, Vector /*y*/) { return {{x}}; }

// The packed words of a B micro-panel of K terms.
constexpr int64_t b_panel_size(int64_t K) { return K * NR; }

// A thread calls this before its first tile.
inline void begin_tiles() {}

// The tile reads A in place if it is f32 with contiguous terms.
inline bool reads_in_place(const Matrix& a, int64_t /*rows*/, int64_t /*K*/) {
    return std::is_same_v<act, float> && a.column_stride == 1;
}
inline PackedA a_in_place(const Matrix& a) {
    return {reinterpret_cast<const char*>(a.data), a.row_stride * 4, 4, MR * a.row_stride * 4};
}

// The packed words of an A micro-panel of K terms, and A[0:rows, 0:K] packed into `copy`.
constexpr int64_t a_panel_size(int64_t K) { return K * MR + padded(MR) - MR; }
__attribute__((noinline)) static PackedA copy_a(PackedWord* copy, Matrix a, int64_t rows, int64_t K) {
    pack_micro_panels(copy, MR, a_panel_size(K), WordSource{a, rows, K}, rows, K);
    return {reinterpret_cast<const char*>(copy), 4, MR * 4, a_panel_size(K) * 4};
}

// sums (R, NR) = A times a B micro-panel, or += if `accumulate`.
template <int R>
void tile(int64_t K, const PackedA& a, const PackedWord* b_panel, float* sums, int64_t stride, bool accumulate) {
    Vector values[R][2] = {};
    const char* block = a.data;
    const int64_t row_stride = a.row_stride, step_stride = a.step_stride;
    for (int64_t first = 0; first < K; first += a.block_steps, block += a.block_stride) {
        const char *upper = block, *lower = block + UPPER_ROWS * row_stride;
        const PackedWord* const end = b_panel + std::min(K - first, a.block_steps) * NR;
        for (; b_panel < end; b_panel += NR, upper += step_stride, lower += step_stride) {
            const Vector left = vector_at(b_panel), right = vector_at(b_panel + LANES);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                const char* const rows = r < UPPER_ROWS ? upper : lower;
                const float factor = *reinterpret_cast<const float*>(rows + r % UPPER_ROWS * row_stride);
                values[r][0] += factor * left;
                values[r][1] += factor * right;
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            Vector& sum = vector_at(sums + r * stride + half * LANES);
            sum = accumulate ? sum + values[r][half] : values[r][half];
        }
}
#include "cpu/select/gemv_terms.h"
#include "cpu/gemm/tile_rows.h"
#include "cpu/gemm/macro_kernel.h"

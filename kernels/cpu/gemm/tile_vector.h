// A product's register tile in f32, by the compiler's vectors: ROWS x PANEL sums.
#pragma once
#include "cpu/simd/vector.h"
#include <type_traits>

// ROWS * 2 sums, 2 vectors of B and one of A fill the registers: 32 with AVX-512 and on aarch64, else 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 12;
#else
constexpr int ROWS = 6;
#endif
constexpr int64_t STEP = 1, TILE_TERMS = 1 << 20;  // terms of a step; of a tile at most: no limit
constexpr int PANEL = 2 * LANES, TERMS = 1, PARTS = 1;
#include "cpu/gemm/pack.h"

// A matrix (lines, terms) as words; activations in bf16 become f32.
struct Words : Lines {
    template <bool WHOLE>
    Parts along(int64_t line, int64_t word) const {
        return {{terms_of_line<WHOLE>(line, word)}};
    }
    template <bool WHOLE>
    Parts across(int64_t line, int64_t word) const {
        return {{lines_of_term<WHOLE>(line, word)}};
    }
};

// LANES lines' only term of a word; see pair_words.h.
constexpr int TERM_DISTANCE = 1;
inline Parts words_across(Vector x, Vector /*y*/) { return {{x}}; }

// How many words a panel has of K terms.
constexpr int64_t panel_size(int64_t K) { return K * PANEL; }

// To be called by a thread before its tiles.
inline void begin_tiles() {}

// A[0:rows, 0:K] as a tile reads it: in place if it is f32 and its terms are neighbours, else as a copy.
__attribute__((noinline)) static Left pack_left(Word* copy, Matrix a, int64_t rows, int64_t K) {
    if (std::is_same_v<act, float> && a.column_stride == 1 && a.strip_gap == 0)
        return {reinterpret_cast<const char*>(a.data), a.row_stride * 4, 4, ROWS * a.row_stride * 4};
    pack_strips(copy, ROWS, K * padded(ROWS), Words{a, rows, K}, rows, K);
    return {reinterpret_cast<const char*>(copy), 4, padded(ROWS) * 4, K * padded(ROWS) * 4};
}

// sums (R, PANEL) = A panel, or += where they go on.
template <int R>
void tile(int64_t K, Left a, const Word* panel, float* sums, int64_t stride, bool goes_on) {
    Vector values[R][2] = {};
    for (int64_t k = 0; k < K; ++k) {
        const Vector left = vector_at(panel + k * PANEL), right = vector_at(panel + k * PANEL + LANES);
        const char* column = a.data + k * a.step_stride;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const float factor = *reinterpret_cast<const float*>(column + r * a.row_stride);
            values[r][0] += factor * left;
            values[r][1] += factor * right;
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            Vector& sum = vector_at(sums + r * stride + half * LANES);
            sum = goes_on ? sum + values[r][half] : values[r][half];
        }
}
#include "cpu/gemm/gemv_terms.h"
#include "cpu/gemm/tile_rows.h"
#include "cpu/gemm/macro_kernel.h"

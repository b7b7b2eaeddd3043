// The register tile of a GEMM in f32, by the compiler's vectors.
#pragma once
#include "cpu/simd/vector.h"
#include <type_traits>

// MR * 2 sums, 2 vectors of B and one of A fill the registers: 32 with AVX-512 and on aarch64, otherwise 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MR = 12;
#else
constexpr int MR = 6;
#endif
constexpr int64_t K_STEP = 1;
constexpr int NR = 2 * LANES, WORD_TERMS = 1, SPLITS = 1;
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

// Whether the terms of a row of A are stored as words.
inline bool has_words(const Matrix& /*a*/, int64_t /*K*/) { return std::is_same_v<act, float>; }

inline Vector add_products(Vector sums, PackedWord a, Vector b) { return sums + a * b; }

#include "cpu/select/gemv_terms.h"
#include "cpu/gemm/register_tile.h"

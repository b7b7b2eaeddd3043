// Packed words of a GEMM in bf16: a word holds two terms that are neighbours in K, 0 beyond the matrix.
#pragma once
#include "cpu/simd/vector.h"
#include <immintrin.h>

constexpr int NR = 32, WORD_TERMS = 2, SPLITS = 1, GEMV_TERMS = 32;
#include "cpu/gemm/pack.h"

inline __mmask32 mask_of_first(int64_t count) { return count >= 32 ? ~0u : count > 0 ? (1u << count) - 1 : 0; }

// A matrix (lines, terms) as packed words.
struct WordSource : LineSource {
    template <bool INTERIOR>
    WordVector words_of_line(int64_t line, int64_t word) const {
        const act* first = matrix.at(line, 2 * word);
        if (INTERIOR) return {{(Vector)_mm512_loadu_si512(first)}};
        const __mmask32 inside = mask_of_first(line < count ? terms - 2 * word : 0);
        return {{(Vector)_mm512_maskz_loadu_epi16(inside, first)}};
    }

    template <bool INTERIOR>
    WordVector word_of_lines(int64_t line, int64_t word) const {
        const auto row = [&](int64_t term) {
            const __mmask16 inside = INTERIOR ? 0xFFFF : mask_of_first(term < terms ? count - line : 0);
            return _mm512_maskz_cvtepu16_epi32(inside, _mm256_maskz_loadu_epi16(inside, matrix.at(line, term)));
        };
        return {{(Vector)_mm512_or_si512(row(2 * word), _mm512_maskz_slli_epi32(0xFFFF, row(2 * word + 1), 16))}};
    }
};

// How many rows of B are between the two terms of a word in a B micro-panel.
constexpr int TERM_DISTANCE = 1;

// The words of 2 LANES terms of one line: x holds the first LANES terms, y the others.
inline WordVector words_from_line(Vector x, Vector y) { return {{(Vector)_mm512_cvtne2ps_pbh((__m512)y, (__m512)x)}}; }

// The words whose first terms are x and second terms y.
inline WordVector words_from_terms(Vector x, Vector y) {
    const auto widened = [](Vector terms) {
        return _mm512_maskz_cvtepu16_epi32(0xFFFF, (__m256i)_mm512_cvtneps_pbh((__m512)terms));
    };
    return {{(Vector)_mm512_or_si512(widened(x), _mm512_maskz_slli_epi32(0xFFFF, widened(y), 16))}};
}

// The inverse of words_from_line: the terms as bf16 has rounded them.
inline void line_from_words(const WordVector& words, Vector& x, Vector& y) {
    const auto widened = [](__m256i terms) {
        return (Vector)_mm512_maskz_slli_epi32(0xFFFF, _mm512_maskz_cvtepu16_epi32(0xFFFF, terms), 16);
    };
    const __m512i all = (__m512i)words.split[0];
    x = widened(_mm512_castsi512_si256(all));
    y = widened(_mm512_maskz_extracti64x4_epi64(0xFF, all, 1));
}

// Returns sums + the products of GEMV_TERMS terms, two in each lane.
inline Vector multiply_add(Vector sums, const act* x, const act* y) {
    return (Vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_loadu_si512(y));
}

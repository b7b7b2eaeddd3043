// Words of a product in bf16: pairs of neighbours in k, zero where there is nothing.
#pragma once
#include "cpu/simd/vector.h"
#include <immintrin.h>

constexpr int PANEL = 32, TERMS = 2, PARTS = 1, DOT_TERMS = 32;
#include "cpu/gemm/pack.h"

inline __mmask32 first_lanes(int64_t count) { return count >= 32 ? ~0u : count > 0 ? (1u << count) - 1 : 0; }

// A matrix (lines, terms) as words.
struct Words : Lines {
    // Word `word` and 15 more of one line.
    template <bool WHOLE>
    Parts along(int64_t line, int64_t word) const {
        const act* first = lines.at(line, 2 * word);
        if (WHOLE) return {{(Vector)_mm512_loadu_si512(first)}};
        return {{(Vector)_mm512_maskz_loadu_epi16(first_lanes(line < count ? terms - 2 * word : 0), first)}};
    }

    // Word `word` of a line and 15 more.
    template <bool WHOLE>
    Parts across(int64_t line, int64_t word) const {
        const auto row = [&](int64_t term) {
            const __mmask16 inside = WHOLE ? 0xFFFF : first_lanes(term < terms ? count - line : 0);
            return _mm512_maskz_cvtepu16_epi32(inside, _mm256_maskz_loadu_epi16(inside, lines.at(line, term)));
        };
        return {{(Vector)_mm512_or_si512(row(2 * word), _mm512_maskz_slli_epi32(0xFFFF, row(2 * word + 1), 16))}};
    }
};

// The rows of a panel whose terms are a word are so far apart.
constexpr int TERM_DISTANCE = 1;
inline Parts words_along(Vector x, Vector y) {  // of 2 LANES terms of a line
    return {{(Vector)_mm512_cvtne2ps_pbh((__m512)y, (__m512)x)}};
}
inline Parts words_across(Vector x, Vector y) {  // of LANES lines' two terms
    const auto widened = [](Vector terms) {
        return _mm512_maskz_cvtepu16_epi32(0xFFFF, (__m256i)_mm512_cvtneps_pbh((__m512)terms));
    };
    return {{(Vector)_mm512_or_si512(widened(x), _mm512_maskz_slli_epi32(0xFFFF, widened(y), 16))}};
}

// The terms that words_along made words of, rounded.
inline void terms_along(const Parts& words, Vector& x, Vector& y) {
    const auto widened = [](__m256i terms) {
        return (Vector)_mm512_maskz_slli_epi32(0xFFFF, _mm512_maskz_cvtepu16_epi32(0xFFFF, terms), 16);
    };
    const __m512i all = (__m512i)words.part[0];
    x = widened(_mm512_castsi512_si256(all));
    y = widened(_mm512_maskz_extracti64x4_epi64(0xFF, all, 1));
}

// sums += the products of DOT_TERMS terms, two by two.
inline Vector add_products(Vector sums, const act* x, const act* y) {
    return (Vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_loadu_si512(x), (__m512bh)_mm512_loadu_si512(y));
}

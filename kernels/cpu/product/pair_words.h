// Words of a product in bf16: pairs of neighbours in k, zero where there is nothing.
#pragma once
#include "words.h"
#include <immintrin.h>

constexpr int PANEL = 32, TERMS = 2;

inline __mmask32 first_lanes(int64_t count) { return count >= 32 ? ~0u : count > 0 ? (1u << count) - 1 : 0; }

// A matrix (lines, terms) as words.
struct Words {
    Matrix lines;
    int64_t count, terms;
    bool terms_are_neighbours = lines.column_stride == 1;

    // Word `word` and 15 more of one line.
    Vector along(int64_t line, int64_t word) const {
        const __mmask32 inside = first_lanes(line < count ? terms - 2 * word : 0);
        return (Vector)_mm512_maskz_loadu_epi16(inside, lines.at(line, 2 * word));
    }

    // Word `word` of a line and 15 more.
    Vector across(int64_t line, int64_t word) const {
        const auto row = [&](int64_t term) {
            const __mmask16 inside = first_lanes(term < terms ? count - line : 0);
            return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(inside, lines.at(line, term)));
        };
        return (Vector)_mm512_or_si512(row(2 * word), _mm512_slli_epi32(row(2 * word + 1), 16));
    }
};

// Packed words of a GEMM in f32 by instructions for bf16. The bf16x3 split writes an f32 as the sum of three bf16, each
// the nearest to what the ones before leave; together they have all 24 bits of the significand.
//
// Of the nine products of two splits the six largest are summed. The other three together are less than 2^-24 of the
// product, the rounding of f32, as tests/compute/test_bf16x3.py proves, and mostly far less. So a sum of one term is off
// by up to two roundings. An infinity, or a number that rounds to one, becomes NaN. The last bf16 of a number below
// 2^-110 becomes 0.
//
// Henry, Tang & Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision
// Computations".
#pragma once
#include "cpu/gemm/dual_operand_size.h"
#include "cpu/simd/vector.h"

constexpr int NR = 32, WORD_TERMS = 2, SPLITS = BF16_SPLITS;
#include "cpu/gemm/pack.h"

typedef uint32_t Bits __attribute__((vector_size(sizeof(Vector)), may_alias));

// The nearest bf16, as an f32.
inline Vector nearest_bf16(Vector x) { return (Vector)(((Bits)x + 0x8000) & 0xFFFF0000); }

// The words whose first terms are x and second terms y.
inline WordVector words_from_terms(Vector x, Vector y) {
    WordVector words;
#pragma GCC unroll 3
    for (Vector& split : words.split) {
        const Vector x_split = nearest_bf16(x), y_split = nearest_bf16(y);
        split = (Vector)((Bits)x_split >> 16 | (Bits)y_split);
        x -= x_split;
        y -= y_split;
    }
    return words;
}

// How many rows of B are between the two terms of a word in a B micro-panel. The terms of a word of a line are LANES
// apart too, so that no term has to change its lane.
constexpr int TERM_DISTANCE = LANES;
inline WordVector words_from_line(Vector x, Vector y) { return words_from_terms(x, y); }

// The inverse of words_from_line.
inline void line_from_words(const WordVector& words, Vector& x, Vector& y) {
    x = y = Vector{};
    for (const Vector& split : words.split) {
        x += (Vector)((Bits)split << 16);
        y += (Vector)((Bits)split & 0xFFFF0000);
    }
}

// A matrix (lines, terms) as packed words.
struct WordSource : LineSource {
    template <bool INTERIOR>
    WordVector words_of_line(int64_t line, int64_t word) const {
        return words_from_terms(terms_of_line<INTERIOR>(line, 2 * word),
                                terms_of_line<INTERIOR>(line, 2 * word + LANES));
    }

    template <bool INTERIOR>
    WordVector word_of_lines(int64_t line, int64_t word) const {
        const int64_t term = word / LANES * LANES * 2 + word % LANES;
        return words_from_terms(lines_of_term<INTERIOR>(line, term), lines_of_term<INTERIOR>(line, term + LANES));
    }
};

#include "cpu/gemm/gemv_terms_f32.h"

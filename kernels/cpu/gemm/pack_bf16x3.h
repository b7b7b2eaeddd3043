// Words of a product of f32 by units for bf16: a term is the sum of three bf16, each the nearest to what the ones before leave;
// together they have all 24 bits. Of the nine products of parts the six largest count; the rest is at most 2^-23 of the product,
// twice f32's own rounding, and mostly far less. Infinities, and what rounds to
// one, become NaN; the last part of a number below 2^-110 becomes 0.
// Henry, Tang & Heinecke 2019, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations".
#pragma once
#include "cpu/simd/vector.h"

constexpr int PANEL = 32, TERMS = 2, PARTS = 3;
#include "cpu/gemm/pack.h"

typedef uint32_t Bits __attribute__((vector_size(sizeof(Vector)), may_alias));

// The nearest bf16, as an f32.
inline Vector nearest(Vector x) { return (Vector)(((Bits)x + 0x8000) & 0xFFFF0000); }

// The parts of words of which x has the first terms, y the second ones.
inline Parts parts_of(Vector x, Vector y) {
    Parts parts;
#pragma GCC unroll 3
    for (Vector& part : parts.part) {
        const Vector x_part = nearest(x), y_part = nearest(y);
        part = (Vector)((Bits)x_part >> 16 | (Bits)y_part);
        x -= x_part;
        y -= y_part;
    }
    return parts;
}

// The rows of a panel whose terms are a word are so far apart, as are the terms of a word of a line: both take the same parts.
constexpr int TERM_DISTANCE = LANES;
inline Parts words_along(Vector x, Vector y) { return parts_of(x, y); }   // of 2 LANES terms of a line
inline Parts words_across(Vector x, Vector y) { return parts_of(x, y); }  // of LANES lines' two terms

// The terms that words_along made words of.
inline void terms_along(const Parts& words, Vector& x, Vector& y) {
    x = y = Vector{};
    for (const Vector& part : words.part) {
        x += (Vector)((Bits)part << 16);
        y += (Vector)((Bits)part & 0xFFFF0000);
    }
}

// A matrix (lines, terms) as words. The terms of a word are LANES apart, so that none has to change its lane.
struct Words : Lines {
    template <bool WHOLE>
    Parts along(int64_t line, int64_t word) const {
        return parts_of(terms_of_line<WHOLE>(line, 2 * word), terms_of_line<WHOLE>(line, 2 * word + LANES));
    }

    template <bool WHOLE>
    Parts across(int64_t line, int64_t word) const {
        const int64_t term = word / LANES * LANES * 2 + word % LANES;
        return parts_of(lines_of_term<WHOLE>(line, term), lines_of_term<WHOLE>(line, term + LANES));
    }
};

#include "cpu/gemm/gemv_terms.h"

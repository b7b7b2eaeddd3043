// What a product's tile reads: words of 32 bits along k, TERMS terms each: an f32, or two of bf16. A line is a row of A or a
// column of B; both are packed by strips of as many lines as a tile has. If words are in PARTS, whose sum is the term, then the
// first parts of LANES words are followed by their second parts, and so on.
// `Words`, which product.h defines, is a matrix (lines, terms) as words: along(line, word) gives LANES neighbours of one line,
// across(line, word) word `word` of LANES lines, zeros where there is nothing; WHOLE says that there is no such place.
#pragma once
#include "cpu/gemm/matrix.h"
#include "cpu/simd/vector.h"
#include <cstdint>

typedef float Word;

// The left side of a tile: where the first strip's first word lies, and the bytes to the next row, step over k, and strip.
struct Left {
    const char* data;
    int64_t row_stride, step_stride, strip_stride;
};

struct Parts {
    Vector part[PARTS];
};

// What `Words` takes its words from. LANES elements as f32, zeros where there is nothing: neighbours in k of one line, or one term
// of neighbouring lines.
struct Lines {
    Matrix lines;
    int64_t count, terms;
    bool terms_are_neighbours = lines.column_stride == 1;

    template <bool WHOLE>
    Vector terms_of_line(int64_t line, int64_t term) const {
        return some<WHOLE>(lines.at(line, term), line < count ? terms - term : 0);
    }
    template <bool WHOLE>
    Vector lines_of_term(int64_t line, int64_t term) const {
        return some<WHOLE>(lines.at(line, term), term < terms ? count - line : 0);
    }

   private:
    template <bool WHOLE>
    static Vector some(const act* values, int64_t count) {
        return WHOLE ? load_vector(values) : load_some(values, count);
    }
};

// LANES lines of LANES words, line by line, or if the source's terms are no neighbours word by word.
template <bool WHOLE, class Words>
inline void load_square(Vector (&rows)[PARTS][LANES], const Words& source, int64_t line, int64_t word) {
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) {
        const Parts parts = source.terms_are_neighbours ? source.template along<WHOLE>(line + i, word)
                                                        : source.template across<WHOLE>(line, word + i);
#pragma GCC unroll 3
        for (int part = 0; part < PARTS; ++part) rows[part][i] = parts.part[part];
    }
}

// Copies a square of LANES lines and words: word i of a line to target[i * stride + line], or if LINES_APART to
// target[line * stride + i], its next part part_stride behind. Beyond the source's `words` nothing is written unless
// LINES_APART.
template <bool LINES_APART, class Words>
inline void pack_square(Word* target, int64_t stride, int64_t part_stride, const Words& source, int64_t line, int64_t word,
                        int64_t words) {
    Vector squares[PARTS][LANES];
    if (line + LANES <= source.count && (word + LANES) * TERMS <= source.terms)
        load_square<true>(squares, source, line, word);
    else
        load_square<false>(squares, source, line, word);
    for (Vector(&rows)[LANES] : squares) {
        if (source.terms_are_neighbours != LINES_APART) transpose(rows);
        if (LINES_APART || words - word >= LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; ++i) vector_at(target + i * stride) = rows[i];
        } else {
            for (int64_t i = 0; i < words - word; ++i) vector_at(target + i * stride) = rows[i];
        }
        target += part_stride;
    }
}

// Copies all lines of a source by strips of `strip_lines`, `strip_size` words apart; in a strip, word by word, the lines
// side by side, filled with zeros up to whole vectors. Memory is read in its order.
template <class Words>
void pack_strips(Word* target, int64_t strip_lines, int64_t strip_size, const Words& source, int64_t lines, int64_t words) {
    const int64_t width = padded(strip_lines);
    const auto pack = [&](int64_t first, int64_t word) {
        Word* const strip = target + first / strip_lines * strip_size;
        for (int64_t line = 0; line < width; line += LANES)
            pack_square<false>(strip + word * PARTS * width + line, width, LANES * width, source, first + line, word, words);
    };
    if (source.terms_are_neighbours)
        for (int64_t first = 0; first < lines; first += strip_lines)
            for (int64_t word = 0; word < words; word += LANES) pack(first, word);
    else
        for (int64_t word = 0; word < words; word += LANES)
            for (int64_t first = 0; first < lines; first += strip_lines) pack(first, word);
}

// What a product's tile reads: words of 32 bits along k, TERMS terms each: an f32, or two neighbours in bf16. `Words`, which
// product.h has before this file, is a matrix as words. A line is a row of A or a column of B; both are packed by strips of as many lines as a tile has.
#pragma once
#include <cstdint>

typedef float Word;

// The left side of a tile: where the first strip's first word lies, and the bytes to the next row, step over k, and strip.
struct Left {
    const char* data;
    int64_t row_stride, step_stride, strip_stride;
};

// LANES lines of LANES words, line by line, or if the source's terms are no neighbours word by word; zeros where it has none.
// WHOLE: it has all.
template <bool WHOLE, class Words>
inline void load_square(Vector* rows, const Words& source, int64_t line, int64_t word) {
    if (source.terms_are_neighbours) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) rows[i] = source.template along<WHOLE>(line + i, word);
    } else {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) rows[i] = source.template across<WHOLE>(line, word + i);
    }
}

// Copies a square of LANES lines and words: word i of a line to target[i * stride + line], or if LINES_APART to
// target[line * stride + i]. Beyond the source's `words` nothing is written unless LINES_APART.
template <bool LINES_APART, class Words>
inline void pack_square(Word* target, int64_t stride, const Words& source, int64_t line, int64_t word, int64_t words) {
    Vector rows[LANES];
    if (line + LANES <= source.count && (word + LANES) * TERMS <= source.terms)
        load_square<true>(rows, source, line, word);
    else
        load_square<false>(rows, source, line, word);
    if (source.terms_are_neighbours != LINES_APART) transpose(rows);
    if (LINES_APART || words - word >= LANES) {
#pragma GCC unroll 16
        for (int i = 0; i < LANES; ++i) vector_at(target + i * stride) = rows[i];
    } else {
        for (int64_t i = 0; i < words - word; ++i) vector_at(target + i * stride) = rows[i];
    }
}

// Copies all lines of a source by strips of `strip_lines`, `strip_size` words apart; in a strip, word by word, the lines
// side by side, filled with zeros up to whole vectors. Memory is read in its order.
template <class Words>
void pack_strips(Word* target, int64_t strip_lines, int64_t strip_size, const Words& source, int64_t lines, int64_t words) {
    const int64_t width = padded(strip_lines);
    const auto pack = [&](int64_t first, int64_t word) {
        for (int64_t line = 0; line < width; line += LANES)
            pack_square<false>(target + first / strip_lines * strip_size + word * width + line, width, source, first + line,
                               word, words);
    };
    if (source.terms_are_neighbours)
        for (int64_t first = 0; first < lines; first += strip_lines)
            for (int64_t word = 0; word < words; word += LANES) pack(first, word);
    else
        for (int64_t word = 0; word < words; word += LANES)
            for (int64_t first = 0; first < lines; first += strip_lines) pack(first, word);
}

// sums (rows of a strip, PANEL), with a stride, = A panel over K terms, or += where they go on.
using Tile = void (*)(int64_t K, Left, const Word* panel, float* sums, int64_t stride, bool goes_on);

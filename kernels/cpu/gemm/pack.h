// Operand packing for the micro-kernel. A packed word is 32 bits: one f32, or two bf16 that are neighbours in K.
// A line is a row of A or a column of B. A is packed into A micro-panels of MR lines, B into B micro-panels of NR
// lines; a micro-panel holds word 0 of all its lines side by side, then word 1 of all, and so on.
//
// Where an f32 is split into SPLITS bf16, LANES words of first splits are followed by the second splits of the same
// terms, and so on.
//
// The including file defines NR, WORD_TERMS (the terms of K in a word) and SPLITS first. After this header it defines
// `WordSource`, a matrix (lines, terms) read as packed words: words_of_line(line, word) gives LANES neighbouring words
// of one line, word_of_lines(line, word) the same word of LANES neighbouring lines. Both give 0 beyond the matrix.
// INTERIOR promises that nothing is beyond it.
#pragma once
#include "cpu/gemm/matrix.h"
#include "cpu/select/load_some.h"
#include "cpu/simd/vector.h"
#include <cstdint>

typedef float PackedWord;

// A as the micro-kernel reads it: the first word of the first micro-panel, and the bytes to the next row of a
// micro-panel, the next step over K, and the next micro-panel. For the vector tile, steps may also be stored in blocks of
// block_steps, with block_stride bytes to the next block.
struct PackedA {
    const char* data;
    int64_t row_stride, step_stride, panel_stride;
    int64_t block_steps = 1 << 30, block_stride = 0;
};

// LANES packed words; split[s] holds the s-th bf16 of each f32, or all of it where SPLITS is 1.
struct WordVector {
    Vector split[SPLITS];
};

// Where WordSource takes its terms from: LANES elements as f32, either neighbours in K of one line, or one term of
// neighbouring lines; 0 beyond the matrix.
struct LineSource {
    Matrix matrix;
    int64_t count, terms;
    bool contiguous_terms = matrix.column_stride == 1;

    template <bool INTERIOR>
    Vector terms_of_line(int64_t line, int64_t term) const {
        return load_inside<INTERIOR>(matrix.at(line, term), line < count ? terms - term : 0);
    }
    template <bool INTERIOR>
    Vector lines_of_term(int64_t line, int64_t term) const {
        return load_inside<INTERIOR>(matrix.at(line, term), term < terms ? count - line : 0);
    }

   private:
    template <bool INTERIOR>
    static Vector load_inside(const act* values, int64_t count) {
        return INTERIOR ? load_vector(values) : load_some(values, count);
    }
};

// Copies a square of LANES lines and words: word i of a line to target[i * stride + line], or if LINE_MAJOR to
// target[line * stride + i]; each further split is stored split_stride after the one before. Words from `words` on are
// beyond the matrix and are not written, unless LINE_MAJOR. The square is loaded line by line if BY_LINE, otherwise word
// by word. Each combination has its own code, so that the square stays in registers.
template <bool LINE_MAJOR, bool BY_LINE, bool INTERIOR, class WordSource>
inline void copy_square(PackedWord* target, int64_t stride, int64_t split_stride, const WordSource& source,
                        int64_t line, int64_t word, int64_t words) {
    Vector squares[SPLITS][LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; ++i) {
        const WordVector loaded = BY_LINE ? source.template words_of_line<INTERIOR>(line + i, word)
                                          : source.template word_of_lines<INTERIOR>(line, word + i);
#pragma GCC unroll 3
        for (int split = 0; split < SPLITS; ++split) squares[split][i] = loaded.split[split];
    }
    for (Vector(&rows)[LANES] : squares) {
        if (BY_LINE != LINE_MAJOR) transpose(rows);
        if (LINE_MAJOR || INTERIOR || words - word >= LANES) {
#pragma GCC unroll 16
            for (int i = 0; i < LANES; ++i) vector_at(target + i * stride) = rows[i];
        } else {
            for (int64_t i = 0; i < words - word; ++i) vector_at(target + i * stride) = rows[i];
        }
        target += split_stride;
    }
}

// Out of line, so that the compiler keeps registers for the squares that are inside.
template <bool LINE_MAJOR, bool BY_LINE, class WordSource>
__attribute__((noinline)) void copy_edge(PackedWord* target, int64_t stride, int64_t split_stride,
                                         const WordSource& source, int64_t line, int64_t word, int64_t words) {
    copy_square<LINE_MAJOR, BY_LINE, false>(target, stride, split_stride, source, line, word, words);
}

template <bool LINE_MAJOR, bool BY_LINE, class WordSource>
inline void pack_square(PackedWord* target, int64_t stride, int64_t split_stride, const WordSource& source,
                        int64_t line, int64_t word, int64_t words) {
    if (line + LANES <= source.count && (word + LANES) * WORD_TERMS <= source.terms)
        copy_square<LINE_MAJOR, BY_LINE, true>(target, stride, split_stride, source, line, word, words);
    else
        copy_edge<LINE_MAJOR, BY_LINE>(target, stride, split_stride, source, line, word, words);
}

// LANES words, from `word` on, of the micro-panel whose first line is `first`.
template <bool BY_LINE, class WordSource>
inline void pack_words(PackedWord* panel, int64_t panel_lines, const WordSource& source, int64_t first, int64_t word,
                       int64_t words) {
    for (int64_t line = padded(panel_lines) - LANES; line >= 0; line -= LANES)
        pack_square<false, BY_LINE>(panel + word * SPLITS * panel_lines + line, panel_lines, LANES * panel_lines,
                                    source, first + line, word, words);
}

// Packs `lines` lines into micro-panels of `panel_lines` lines, `panel_words` apart. Lines beyond the matrix are zeros.
// The matrix is read in the order in which it is stored.
//
// Only whole vectors are written. If panel_lines is not a multiple of LANES, a vector also writes into the next word,
// which is therefore written later: words in ascending order, lines of a word in descending order. A micro-panel needs
// room for a vector after its last word.
template <class WordSource>
void pack_micro_panels(PackedWord* target, int64_t panel_lines, int64_t panel_words, const WordSource& source,
                       int64_t lines, int64_t words) {
    if (source.contiguous_terms)
        for (int64_t first = 0; first < lines; first += panel_lines, target += panel_words)
            for (int64_t word = 0; word < words; word += LANES)
                pack_words<true>(target, panel_lines, source, first, word, words);
    else
        for (int64_t word = 0; word < words; word += LANES) {
            PackedWord* panel = target;
            for (int64_t first = 0; first < lines; first += panel_lines, panel += panel_words)
                pack_words<false>(panel, panel_lines, source, first, word, words);
        }
}

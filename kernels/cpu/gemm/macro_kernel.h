// Products of packed strips by tiles, on one thread.
#pragma once
#include <algorithm>

// How many words a copy by pack_left of (rows, K) may have.
constexpr int64_t left_size(int64_t rows, int64_t K) {
    return padded(rows, ROWS) / ROWS * padded(ROWS) * padded(K, 2 * LANES) / TERMS * PARTS;
}

// Copies B[0:K, 0:columns] into panels of PANEL columns, zeros where there is nothing.
__attribute__((noinline)) static void pack_right(Word* panels, Matrix b, int64_t K, int64_t columns) {
    const Matrix lines = {b.data, b.column_stride, b.row_stride};
    pack_strips(panels, PANEL, panel_size(K), Words{lines, columns, K}, columns, panel_size(K) / PANEL / PARTS);
}

// The row of B that is the first term of a panel's row of words; its second one is TERM_DISTANCE behind.
constexpr int64_t first_term(int64_t word) { return word / TERM_DISTANCE * TERM_DISTANCE * TERMS + word % TERM_DISTANCE; }

// Puts a row of words of LANES columns into a panel; x and y: the terms.
inline void put_words(Word* panel, int64_t word, int64_t column, Vector x, Vector y) {
    const Parts parts = words_across(x, y);
    Word* const target = panel + (word / LANES * PARTS * LANES + word % LANES) * PANEL + column;
    for (int part = 0; part < PARTS; ++part) vector_at(target + part * LANES * PANEL) = parts.part[part];
}

// What is done beside a product: nothing.
struct Nothing {
    void operator()() const {}
};

// sums (rows, columns), `stride` apart, = A B over K terms, or += where they go on. B's panels are `panel_words` apart: they may
// have more terms. `sums` has room for whole tiles: rows up to a multiple of ROWS, columns of PANEL. beside() is called now and
// then, however often: what vectors have to do takes no time while other units multiply.
// As many terms of a panel as a tile takes stay in the first cache for all rows, of A's strip for all columns.
template <class Beside = Nothing>
inline void multiply(Left a, const Word* panels, int64_t panel_words, float* sums, int64_t stride, int64_t rows,
                     int64_t columns, int64_t K, bool goes_on, Beside&& beside = Nothing()) {
    for (int64_t k = 0; k < K; k += TILE_TERMS, a.data += TILE_TERMS / STEP * a.step_stride) {
        Left strip = a;
        for (int64_t row = 0; row < rows; row += ROWS, strip.data += a.strip_stride)
            for (int64_t column = 0; column < columns; column += PANEL)
                multiply_tile(std::min<int64_t>(ROWS, rows - row), std::min<int64_t>(TILE_TERMS, K - k), strip,
                              panels + column / PANEL * panel_words + panel_size(k), sums + row * stride + column, stride,
                              goes_on || k > 0, beside);
    }
}

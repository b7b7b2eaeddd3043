// Products of packed strips by tiles, on one thread.
#pragma once

// How many words a copy by pack_left of (rows, K) may have.
constexpr int64_t left_size(int64_t rows, int64_t K) {
    return padded(rows, ROWS) / ROWS * padded(ROWS) * padded(K, 2 * LANES) / TERMS * PARTS;
}

// Copies B[0:K, 0:columns] into panels of PANEL columns, zeros where there is nothing.
__attribute__((noinline)) static void pack_right(Word* panels, Matrix b, int64_t K, int64_t columns) {
    const Matrix lines = {b.data, b.column_stride, b.row_stride};
    pack_strips(panels, PANEL, panel_size(K), Words{lines, columns, K}, columns, panel_size(K) / PANEL / PARTS);
}

// sums (rows, columns), `stride` apart, = A B over K terms, or += where they go on. B's panels are `panel_words` apart: they may
// have more terms. `sums` has room for whole tiles: rows up to a multiple of ROWS, columns of PANEL.
inline void multiply(Left a, const Word* panels, int64_t panel_words, float* sums, int64_t stride, int64_t rows,
                     int64_t columns, int64_t K, bool goes_on) {
    for (int64_t row = 0; row < rows; row += ROWS, a.data += a.strip_stride) {
        const Tile multiply_tile = tile_of(std::min<int64_t>(ROWS, rows - row));
        Left turn = a;
        for (int64_t k = 0; k < K; k += TILE_TERMS, turn.data += TILE_TERMS / STEP * a.step_stride)
            for (int64_t column = 0; column < columns; column += PANEL)
                multiply_tile(std::min<int64_t>(TILE_TERMS, K - k), turn, panels + column / PANEL * panel_words + panel_size(k),
                              sums + row * stride + column, stride, goes_on || k > 0);
    }
}

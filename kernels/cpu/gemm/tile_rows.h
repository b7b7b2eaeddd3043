// The tile of as many rows as are left: a template for each number keeps its sums in registers.
#pragma once

using Tile = void (*)(int64_t K, Left, const Word* panel, float* sums, int64_t stride, bool goes_on);

template <int R = ROWS>
Tile tile_of(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return tile_of<R - 1>(rows);
    return tile<R>;
}

// sums (rows, PANEL), with a stride, = A panel over K terms, or += where they go on.
template <class Beside>
inline void multiply_tile(int64_t rows, int64_t K, Left a, const Word* panel, float* sums, int64_t stride, bool goes_on,
                          Beside& beside) {
    tile_of(rows)(K, a, panel, sums, stride, goes_on);
    beside();
}

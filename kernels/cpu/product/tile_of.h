// The tile of as many rows as are left: a template for each number keeps its sums in registers.
#pragma once

template <int R = ROWS>
Tile tile_of(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return tile_of<R - 1>(rows);
    return tile<R>;
}

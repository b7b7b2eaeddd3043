// The tile of as many rows as are left: a template for each number keeps its sums in registers.
#pragma once

using Tile = void (*)(int64_t, Left, const Element*, float*, int64_t, bool);

template <int R>
Tile tile_of_rows(int64_t rows) {
    if constexpr (R == 1)
        return tile<1>;
    else
        return rows == R ? tile<R> : tile_of_rows<R - 1>(rows);
}

inline Tile tile_of(int64_t rows) { return tile_of_rows<ROWS>(rows); }

// Register tiles of fewer rows than MR: a template for each number of rows keeps the sums in registers.
#pragma once

using Tile = void (*)(int64_t K, const PackedA&, const PackedWord* b_panel, float* sums, int64_t stride,
                      bool accumulate);

template <int R = MR>
Tile tile_for_rows(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return tile_for_rows<R - 1>(rows);
    return tile<R>;
}

// sums (rows, NR), rows `stride` apart, = A times a B micro-panel over K terms, or += if `accumulate`.
template <class Interleave>
inline void multiply_tile(int64_t rows, int64_t K, const PackedA& a, const PackedWord* b_panel, float* sums,
                          int64_t stride, bool accumulate, Interleave& interleave) {
    tile_for_rows(rows)(K, a, b_panel, sums, stride, accumulate);
    interleave();
}

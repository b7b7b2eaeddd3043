// Register tiles of up to MR rows and one or two vectors: a template for each keeps the sums in registers.
#pragma once

using Tile = void (*)(int64_t K, const PackedA&, const PackedWord* b_panel, float* sums, int64_t stride,
                      bool accumulate);

template <int VECTORS, int R = MR>
Tile tile_for_rows(int64_t rows) {
    if constexpr (R > 1)
        if (rows < R) return tile_for_rows<VECTORS, R - 1>(rows);
    return tile<R, VECTORS>;
}

// sums (rows, columns), rows `stride` apart, = A times a B micro-panel over K terms, or += if `accumulate`. `sums` has room
// for whole vectors.
template <class Interleave>
inline void multiply_tile(int64_t rows, int64_t columns, int64_t K, const PackedA& a, const PackedWord* b_panel,
                          float* sums, int64_t stride, bool accumulate, Interleave& interleave) {
    (columns > LANES ? tile_for_rows<2>(rows) : tile_for_rows<1>(rows))(K, a, b_panel, sums, stride, accumulate);
    interleave();
}

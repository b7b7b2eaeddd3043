// A product's register tile in bf16, by AMX: an instruction multiplies 16 x 32 by 32 x 16 and adds to 16 x 16 sums in f32.
// Two by two of them make 32 x 32. tiles.h has the instructions.
// Intel, "Instruction Set Extensions Programming Reference", TDPBF16PS.
#pragma once
#include "interleave.h"
#include "tiles.h"

constexpr int ROWS = 32, STEP = 32;  // STEP: terms of one instruction

struct Left {
    const act* data;
    int64_t row_bytes;
};

inline int64_t whole_steps(int64_t K) { return (K + STEP - 1) / STEP * STEP; }
inline int64_t panel_size(int64_t K) { return whole_steps(K) / 2 * PANEL; }
inline void begin_tiles() { configure_tiles(); }

// A[0:rows, 0:K] as a tile reads it: in place if it is whole, else as a copy with zeros for what is missing.
inline Left pack_left(Element* copy, Matrix a, int64_t rows, int64_t K) {
    if (a.column_stride == 1 && K % STEP == 0 && rows == ROWS) return {a.data, a.row_stride * 2};
    act* const target = reinterpret_cast<act*>(copy);
    const int64_t width = whole_steps(K);
    std::fill(target, target + ROWS * width, act(0.0f));
    constexpr int64_t SIDE = 32;  // by squares: where columns are side by side, all of a cache line is used
    for (int64_t first = 0; first < K; first += SIDE)
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t k = first; k < std::min(K, first + SIDE); ++k) target[row * width + k] = *a.at(row, k);
    return {target, width * 2};
}

// Panels of pairs, with zeros up to a whole step.
inline void pack_right(Element* panels, Matrix b, int64_t K, int64_t columns) {
    pack_pairs(panels, b, K, columns, whole_steps(K) / 2);
}

// sums (32, PANEL) = A panel, or += where they go on. `sums` has room for all 32 rows.
inline void tile(int64_t K, Left a, const Element* panel, float* sums, int64_t stride, bool goes_on) {
    const char* left = reinterpret_cast<const char*>(a.data);
    float *lower = sums + 16 * stride;
    if (goes_on) {
        LOAD_TILE(0, sums, stride * 4);
        LOAD_TILE(1, sums + 16, stride * 4);
        LOAD_TILE(2, lower, stride * 4);
        LOAD_TILE(3, lower + 16, stride * 4);
    } else {
        ZERO_TILE(0);
        ZERO_TILE(1);
        ZERO_TILE(2);
        ZERO_TILE(3);
    }
    for (int64_t k = 0; k < K; k += STEP, panel += STEP / 2 * PANEL) {
        LOAD_TILE(4, left + k * 2, a.row_bytes);
        LOAD_TILE(5, left + k * 2 + 16 * a.row_bytes, a.row_bytes);
        LOAD_TILE(6, panel, PANEL * 4);
        LOAD_TILE(7, panel + 16, PANEL * 4);
        MULTIPLY_TILES(0, 4, 6);
        MULTIPLY_TILES(1, 4, 7);
        MULTIPLY_TILES(2, 5, 6);
        MULTIPLY_TILES(3, 5, 7);
    }
    STORE_TILE(0, sums, stride * 4);
    STORE_TILE(1, sums + 16, stride * 4);
    STORE_TILE(2, lower, stride * 4);
    STORE_TILE(3, lower + 16, stride * 4);
}

using Tile = void (*)(int64_t, Left, const Element*, float*, int64_t, bool);

inline Tile tile_of(int64_t /*rows*/) { return tile; }

// Tiles of bf16 in shared memory, as fragments read them and as threads fill them, a chunk of WIDTH elements at a time.
#pragma once
#include "values.h"

// Rows of CHUNKS chunks. A row's chunks are permuted, so that one chunk of eight neighbouring rows lies in eight different
// groups of banks.
template <int CHUNKS>
struct Tile {
    static_assert((CHUNKS & (CHUNKS - 1)) == 0, "");
    static constexpr int ROW = CHUNKS * WIDTH;  // elements
    bf16* data;

    static DEVICE_MEMBER int place(int row, int chunk) {
        constexpr int ROWS_OF_A_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1, MASK = CHUNKS < 8 ? CHUNKS - 1 : 7;
        return (row * CHUNKS + (chunk ^ (row / ROWS_OF_A_LINE & MASK))) * WIDTH;
    }

    // The element at (first_row + row, column), first_row a multiple of 16, after which the permutation repeats: what
    // depends on the lane is then the same for all squares of a tile.
    DEVICE_MEMBER bf16* at(int first_row, int row, int column) const {
        return data + first_row * ROW + place(row, column / WIDTH) + column % WIDTH;
    }
};

// Copies the first `count` elements of a chunk, and zeros for the others.
DEVICE void copy_elements(bf16* target, const bf16* source, int64_t count) {
    Words words = {};
    for (int i = 0; i < WIDTH; ++i)
        if (i < count) words.word[i / 2] |= static_cast<uint32_t>(source[i].bits) << i % 2 * 16;
    *reinterpret_cast<Words*>(target) = words;
}

// Tiles of bf16 in shared memory: threads fill them in chunks of WIDTH elements, an mma reads its operands from them.
#pragma once
#include "gpu/simt/vector_io.h"

constexpr int MMA_THREADS = MMA_WAVES * WAVE;  // of a block

// Rows of CHUNKS chunks. The chunks of a row are permuted, so that the same chunk of eight neighbouring rows falls into
// eight different groups of banks.
template <int CHUNKS>
struct SharedTile {
    static_assert((CHUNKS & (CHUNKS - 1)) == 0, "");
    static constexpr int ROW = CHUNKS * WIDTH;  // elements
    bf16* data;

    // The offset in elements of a chunk.
    static DEVICE_MEMBER int offset(int row, int chunk) {
        constexpr int ROWS_OF_A_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1, MASK = CHUNKS < 8 ? CHUNKS - 1 : 7;
        return (row * CHUNKS + (chunk ^ (row / ROWS_OF_A_LINE & MASK))) * WIDTH;
    }

    // The element at (first_row + row, column). first_row must be a multiple of 16, because the permutation
    // repeats after 16 rows: the lane's part of the address is then the same for all mma tiles of this tile.
    DEVICE_MEMBER bf16* at(int first_row, int row, int column) const {
        return data + first_row * ROW + offset(row, column / WIDTH) + column % WIDTH;
    }
};

// Copies the first `count` elements of a chunk and fills the others with zeros.
DEVICE void copy_elements(bf16* target, const bf16* source, int64_t count) {
    Vector vector = {};
    for (int i = 0; i < WIDTH; ++i)
        if (i < count) vector.word[i / 2] |= static_cast<uint32_t>(source[i].bits) << i % 2 * 16;
    *reinterpret_cast<Vector*>(target) = vector;
}

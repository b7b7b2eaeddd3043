// A whole head in shared memory, as tiles of MMA_TILE rows: for sequences of at most SHORT_ROWS, D a multiple of WIDTH.
#pragma once
#include "gpu/mma/head_tiles.h"

constexpr int CHUNKS = Head::CHUNKS, ALONG = Head::ALONG;
constexpr int TILE = MMA_TILE * HEAD_CHANNELS;  // elements
using Rows = Head::Layout;

struct Sizes {
    int S, H, D, tiles;
};

// A chunk of a head's rows that a thread copies: number `i` of all, counted along the rows. Rows from S on and channels
// from D on become zero.
struct Chunk {
    int row, column;
    bool inside;

    DEVICE_MEMBER Chunk(int i, const Sizes& sizes)
        : row(i / CHUNKS), column(i % CHUNKS * WIDTH), inside(row < sizes.S && column < sizes.D) {}
    DEVICE_MEMBER int offset(int stride) const { return row * stride + column; }
    DEVICE_MEMBER bf16* in(bf16* tiles) const { return tiles + Rows::offset(row, column / WIDTH); }
    DEVICE_MEMBER void copy(bf16* tiles, const act* source, int stride) const {
        copy_chunk(in(tiles), source + offset(stride), inside);
    }
};

// The tiles that a wave owns, one after the other: the first and the last, or the second and the last but one. So all
// waves have the same work, as far as causality determines it. There are at least half as many waves as tiles.
struct OwnTiles {
    int first, second;
    DEVICE_MEMBER OwnTiles()
        : first(uniform(threadIdx.x / WAVE)), second(2 * static_cast<int>(blockDim.x / WAVE) - 1 - first) {}
    DEVICE_MEMBER int operator[](int turn) const { return turn ? second : first; }
};

// Stores the rows of a tile that are below S, each times its factor. The four lanes that hold a row exchange pairs of
// channels, so that each stores neighbours by 16 bytes.
DEVICE void store_rows(act* target, int stride, const Sum (&sums)[ALONG], const float (&factor)[Mma::SLOTS], int tile,
                       const Sizes& sizes) {
    const int lane = Mma::lane() % 4;
#pragma unroll
    for (int slot = 0; slot < Mma::SLOTS; ++slot)
#pragma unroll
        for (int group = 0; group < ALONG; group += 2) {
            Vector vector;  // word i: channels 8 * i + 2 * lane and the next, then eight neighbours
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float* pair = sums[group + i / 2].value + i % 2 * 4 + slot * 2;
                vector.word[i] = bf16_pair(pair[0] * factor[slot], pair[1] * factor[slot]);
            }
            transpose_words(vector);
            const int row = tile * MMA_TILE + Mma::row(slot), column = group * MMA_TILE + lane * WIDTH;
            if (row < sizes.S && column < sizes.D) *reinterpret_cast<Vector*>(target + row * stride + column) = vector;
        }
}

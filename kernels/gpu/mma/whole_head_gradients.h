// The shared memory of attention_short_backward.hip, and the loading of a head. attention_short.py:backward_bytes has its
// size.
#pragma once
#include "gpu/mma/whole_head.h"
#ifndef KEY_TILES
#define KEY_TILES 1
#endif

constexpr int EACH = KEY_TILES * CHUNKS;   // most chunks of a thread
constexpr int PAIR = MMA_TILE * MMA_TILE;  // elements of ds of two tiles

// Of two neighbouring queries; logsumexp in powers of 2.
struct alignas(16) Statistics {
    float logsumexp[2], delta[2];
};

struct Memory {
    Statistics* statistics;
    bf16 *keys, *queries, *dout, *values;  // tiles of rows
    bf16* ds;                              // squares, those of a query tile in a row

    DEVICE_MEMBER Memory(unsigned char* bytes, int tiles) {
        statistics = reinterpret_cast<Statistics*>(bytes);
        keys = reinterpret_cast<bf16*>(statistics + tiles * MMA_TILE / 2);
        queries = keys + tiles * TILE;
        dout = queries + tiles * TILE;
        ds = values = dout + tiles * TILE;
    }

    // ds of a key tile and a query tile after it, transposed.
    DEVICE_MEMBER bf16* square(int key_tile, int query_tile) const {
        return ds + (query_tile * (query_tile - 1) / 2 + key_tile) * PAIR;
    }

    // The same on the diagonal.
    DEVICE_MEMBER bf16* diagonal(int tile) const { return queries + tile * TILE; }
};

// Brings a head into shared memory, zeros for rows from S on and channels from D on. So queries from S on have no share in
// dk and dv, whatever their probabilities are.
DEVICE void load_head(const Memory& memory, const act* q, const act* dout, const act* y, const float* logsumexp,
                      const Sizes& sizes) {
    const int chunks = sizes.tiles * MMA_TILE * CHUNKS, E = sizes.H * sizes.D;
    Vector outputs[EACH];
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        const int i = threadIdx.x + e * blockDim.x;
        if (i >= chunks) break;
        const Chunk chunk(i, sizes);
        outputs[e] = chunk.inside ? *reinterpret_cast<const Vector*>(y + chunk.offset(E)) : Vector{};
        chunk.copy(memory.keys, q + E, 3 * E);
        chunk.copy(memory.values, q + 2 * E, 3 * E);
        chunk.copy(memory.queries, q, 3 * E);
        chunk.copy(memory.dout, dout, E);
    }
    copies_commit();
    for (int row = threadIdx.x; row < sizes.tiles * MMA_TILE; row += blockDim.x)
        memory.statistics[row / 2].logsumexp[row % 2] = row < sizes.S ? logsumexp[row] * LOG2_E : 0.0f;
    copies_wait<0>();
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        const int i = threadIdx.x + e * blockDim.x;
        if (i >= chunks) break;
        const Chunk chunk(i, sizes);
        float own[WIDTH], gradient[WIDTH], sum = 0.0f;
        widen(own, outputs[e]);
        load(gradient, chunk.in(memory.dout));  // which this thread has copied
        for (int c = 0; c < WIDTH; ++c) sum += own[c] * gradient[c];
        sum = sum_of_lanes<CHUNKS>(sum);
        if (chunk.column == 0) memory.statistics[chunk.row / 2].delta[chunk.row % 2] = sum;
    }
}

// The rows of a batch in the order of their tokens, for embedding_sorted.hip.
#pragma once
#include "gpu/select/platform.h"
#include "gpu/launch_shapes.h"

constexpr int CHUNK = 1024;  // tokens that a block sorts
constexpr int TILE = 128;    // neighbours in the order that a block adds

// Phases: the constants are read by hipgpt/compute/backends/sorted_embedding.py.
constexpr int SORT_CHUNKS = 0;
constexpr int RANK = 1;
constexpr int SUM_TILES = 2;
constexpr int ADD_RUNS = 3;

// The workspace: a key for each token of whole chunks, id * CHUNK + index in the chunk; then rows and ids in order; then
// (tiles, 2, C) f32 sums of the first and the last run of each tile.
struct SortedTokens {
    int64_t N, chunks;
    uint32_t *keys, *rows, *ids;
    float* partials;

    DEVICE_MEMBER SortedTokens(uint32_t* workspace, int64_t tokens) {
        N = tokens;
        chunks = (N + CHUNK - 1) / CHUNK;
        keys = workspace;
        rows = keys + chunks * CHUNK;
        ids = rows + chunks * CHUNK;
        partials = reinterpret_cast<float*>(ids + chunks * CHUNK);
    }

    // Keys beyond the last token are greater than all others.
    DEVICE_MEMBER void sort_chunk(const int32_t* tokens) const {
        __shared__ uint32_t sorted[CHUNK];
        const int64_t first = int64_t{blockIdx.x} * CHUNK;
        for (int i = threadIdx.x; i < CHUNK; i += EMBEDDING_THREADS)
            sorted[i] = first + i < N ? static_cast<uint32_t>(tokens[first + i]) * CHUNK + i : 0xFFFFFFFFu;
        for (int length = 2; length <= CHUNK; length *= 2)
            for (int distance = length / 2; distance > 0; distance /= 2) {
                __syncthreads();
                for (int i = threadIdx.x; i < CHUNK / 2; i += EMBEDDING_THREADS) {
                    const int low = i / distance * distance * 2 + i % distance, high = low + distance;
                    const bool is_rising = (low & length) == 0;
                    const uint32_t a = sorted[low], b = sorted[high];
                    sorted[low] = is_rising == (a < b) ? a : b;
                    sorted[high] = is_rising == (a < b) ? b : a;
                }
            }
        __syncthreads();
        for (int i = threadIdx.x; i < CHUNK; i += EMBEDDING_THREADS) keys[first + i] = sorted[i];
    }

    // How many keys of a chunk are below a bound.
    DEVICE_MEMBER int below(int64_t chunk, uint32_t bound) const {
        int found = 0;
        for (int step = CHUNK; step > 0; step /= 2)
            if (found + step <= CHUNK && keys[chunk * CHUNK + found + step - 1] < bound) found += step;
        return found;
    }

    // Tokens of equal ids keep their order: those of earlier chunks come first.
    DEVICE_MEMBER void rank() const {
        const int64_t i = int64_t{blockIdx.x} * EMBEDDING_THREADS + threadIdx.x, chunk = i / CHUNK;
        const uint32_t key = keys[i], id = key / CHUNK;
        if (key == 0xFFFFFFFFu) return;
        int64_t place = i % CHUNK;
        for (int64_t other = 0; other < chunks; ++other)
            if (other != chunk) place += below(other, (other < chunk ? id + 1 : id) * CHUNK);
        rows[place] = static_cast<uint32_t>(chunk * CHUNK + key % CHUNK);
        ids[place] = id;
    }
};

struct TileMemory {
    uint32_t rows[TILE], ids[TILE];
};

// A tile of this order, its rows and ids in shared memory.
struct Tile {
    const TileMemory& memory;
    const SortedTokens& sorted;
    int64_t index;
    int count;

    // All threads of the block must call it.
    DEVICE_MEMBER Tile(TileMemory& own, const SortedTokens& tokens, int64_t tile)
        : memory(own), sorted(tokens), index(tile) {
        const int64_t left = sorted.N - tile * TILE;
        count = static_cast<int>(left < TILE ? left : TILE);
        for (int i = threadIdx.x; i < count; i += EMBEDDING_THREADS) {
            own.rows[i] = sorted.rows[tile * TILE + i];
            own.ids[i] = sorted.ids[tile * TILE + i];
        }
        __syncthreads();
    }

    DEVICE_MEMBER int64_t row(int i) const { return memory.rows[i]; }
    DEVICE_MEMBER uint32_t id(int i) const { return memory.ids[i]; }

    // Whether the first run continues the last one of the tile before, and whether the last one continues in the next tile.
    DEVICE_MEMBER bool continues_before() const { return index > 0 && sorted.ids[index * TILE - 1] == id(0); }
    DEVICE_MEMBER bool continues_after() const {
        return (index + 1) * TILE < sorted.N && sorted.ids[(index + 1) * TILE] == id(count - 1);
    }
    DEVICE_MEMBER bool begins_a_long_run() const {
        return continues_after() && !(id(0) == id(count - 1) && continues_before());
    }
};

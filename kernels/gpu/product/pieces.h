// What the products by matrix units share: how operands come into shared memory and how sums leave it.
#pragma once
#include "tile.h"

constexpr int STAGES = 3, SQUARE = 16;

// The rows of a matrix in memory have `stride` elements each.
struct Matrix {
    const bf16* data;
    int64_t stride;
};

// Copies ROWS rows i by DEPTH terms k of an operand into a tile, stage after stage.
// ALONG_TERMS: memory holds element (i, k) at i * stride + k, and so does the tile; else at k * stride + i.
// Tile rows have chunks of WIDTH elements; Layout says where they lie, and how many elements rows are apart.
template <int ROWS, int DEPTH, bool ALONG_TERMS, int THREADS, class Layout>
struct Copier {
    static constexpr int CHUNKS = (ALONG_TERMS ? DEPTH : ROWS) / WIDTH, EACH = ROWS * DEPTH / WIDTH / THREADS;
    static constexpr int STEP = THREADS / CHUNKS;  // rows of the tile between a thread's chunks
    static_assert(STEP % 8 == 0, "the permutation of a tile's chunks repeats after 8 rows");
    const bf16* next;               // the thread's first chunk in the coming stage
    int64_t step, rows_left, left;  // elements between its chunks; rows i from its first on; terms k from its first on
    int place;                      // of its first chunk in the tile
    bool wide;

    DEVICE_MEMBER Copier(Matrix source, int64_t first_row, int64_t rows, int64_t first_term, int64_t terms) {
        const int tile_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        const int64_t i = first_row + (ALONG_TERMS ? tile_row : chunk * WIDTH);
        const int64_t k = first_term + (ALONG_TERMS ? chunk * WIDTH : tile_row);
        next = source.data + (ALONG_TERMS ? i * source.stride + k : k * source.stride + i);
        step = STEP * source.stride;
        rows_left = rows - i;
        left = terms - k;
        place = Layout::place(tile_row, chunk);
        wide = is_wide(source.stride);
    }

    DEVICE_MEMBER void copy_stage(bf16* tile) {
        if (wide) {
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const bool inside = rows_left > (ALONG_TERMS ? e * STEP : 0) && left > (ALONG_TERMS ? 0 : e * STEP);
                copy_chunk(tile + place + e * STEP * Layout::ROW, next + e * step, inside);
            }
        } else {
#pragma unroll 1
            for (int e = 0; e < EACH; ++e) {
                const int64_t rows = rows_left - (ALONG_TERMS ? e * STEP : 0), terms = left - (ALONG_TERMS ? 0 : e * STEP);
                const int64_t count = rows > 0 && terms > 0 ? (ALONG_TERMS ? terms : rows) : 0;
                copy_elements(tile + place + e * STEP * Layout::ROW, next + e * step, count);
            }
        }
        next += ALONG_TERMS ? DEPTH : step / STEP * DEPTH;
        left -= DEPTH;
    }
};

// Which piece of C a block makes: pieces are visited in bands of BAND rows of pieces, so that those at work share operands in
// the cache.
struct Place {
    int64_t row, column;
};

DEVICE Place place_of_block() {
    constexpr int64_t BAND = 8;
    const int64_t columns = gridDim.x, linear = int64_t{blockIdx.y} * columns + blockIdx.x, size = BAND * columns;
    const int64_t first = linear / size * BAND, rows = gridDim.y - first < BAND ? gridDim.y - first : BAND;
    return {first + linear % size % rows, linear % size / rows};
}

// The terms of a block: a grid of several blocks along z cuts them into as many parts.
struct Terms {
    int64_t first, last;
    int stages;
};

DEVICE Terms terms_of_block(int64_t K, int depth) {
    const int64_t stages = (K + depth - 1) / depth, each = (stages + gridDim.z - 1) / gridDim.z * depth;
    const int64_t first = blockIdx.z * each, last = first + each < K ? first + each : K;
    return {first, last, last > first ? static_cast<int>((last - first + depth - 1) / depth) : 0};
}

// Sums on their way out: ROWS rows of SIDE floats, GROUPS times below one another; the 4 keep neighbouring rows in different
// banks.
template <int SIDE, int ROWS, int GROUPS, int THREADS>
struct Outgoing {
    static constexpr int ROW = SIDE + 4, BYTES = GROUPS * ROWS * ROW * 4;

    // Calls store(row, column, WIDTH values, columns left) for what lies inside C; each value is the sum of all groups' in order.
    template <class Store>
    static DEVICE_MEMBER void write(const float* shared, int64_t first_row, int64_t first_column, int64_t M, int64_t N,
                                    const Store& store) {
        constexpr int RUNS = SIDE / WIDTH;
        for (int place = threadIdx.x; place < ROWS * RUNS; place += THREADS) {
            const int64_t row = first_row + place / RUNS, column = first_column + place % RUNS * WIDTH;
            if (row >= M || column >= N) continue;
            float values[WIDTH] = {}, others[WIDTH];
#pragma unroll
            for (int group = 0; group < GROUPS; ++group) {
                load(others, shared + (group * ROWS + place / RUNS) * ROW + place % RUNS * WIDTH);
                for (int i = 0; i < WIDTH; ++i) values[i] += others[i];
            }
            store(row, column, values, N - column);
        }
    }
};

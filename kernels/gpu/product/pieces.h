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

// Sums of A's rows: as a product's RowStore, none, or added to `target` unless that is null.
struct NoRowSums {
    static constexpr bool POSSIBLE = false;
    DEVICE_MEMBER bool wanted() const { return false; }
    DEVICE_MEMBER void operator()(int64_t, float) const {}
};
struct AddRowSums {
    static constexpr bool POSSIBLE = true;
    float* target;
    DEVICE_MEMBER bool wanted() const { return target; }
    DEVICE_MEMBER void operator()(int64_t row, float sum) const { target[row] += sum; }
};

// WIDTH neighbours of a row.
struct Run {
    float value[WIDTH];
};

// What becomes of a piece's sums, a run at a time: fetch(row, column, count, wide) reads what they are to be put together with,
// store(row, column, sums, fetched, count, wide) does so and writes. count: how many of the run lie inside C; wide: all do, at
// an aligned address. All that a thread fetches is on its way at a time: a fetch behind a store would wait until that has its
// values, since the compiler cannot know that it does not read what that writes.
template <class Fetch, class Store>
struct Epilogue {
    Fetch fetch;
    Store store;
};
template <class Fetch, class Store>
DEVICE Epilogue<Fetch, Store> epilogue_of(const Fetch& fetch, const Store& store) {
    return {fetch, store};
}

// How a piece leaves a block: through shared memory, ROWS rows of SIDE floats at a time, GROUPS times below one another, so that
// a thread has runs of neighbours; those inside C go through the epilogue. row_store(row, sum) gets the sums of A's rows.
//
// If the terms are cut into parts, a first launch leaves the sums of each in the workspace, and a second one adds them up, a
// thread for each run.
enum Phase { WHOLE, PARTS, ADDING };

struct Parts {
    float* workspace;
    int32_t phase, count;
};

// MOST_FETCHED: how many runs a thread has registers to fetch at a time.
template <int SIDE, int ROWS, int GROUPS, int THREADS, int MOST_FETCHED>
struct Outgoing {
    static constexpr int ROW = SIDE + 4, BYTES = GROUPS * ROWS * ROW * 4;  // 4: neighbouring rows lie in different banks
    static constexpr int RUNS = SIDE / WIDTH, PART = SIDE * SIDE + SIDE;
    float* shared;
    Parts parts;
    Place place;
    int64_t M, N;

    DEVICE_MEMBER float* part(int64_t z) const {
        return parts.workspace + ((z * gridDim.y + place.row) * gridDim.x + place.column) * PART;
    }

    // The rows' sums, of which each group has left its own at shared[group * SIDE].
    template <class RowStore>
    DEVICE_MEMBER void write_row_sums(const RowStore& row_store) const {
        if (threadIdx.x >= SIDE) return;
        float sum = 0.0f;
        for (int group = 0; group < GROUPS; ++group) sum += shared[group * SIDE + threadIdx.x];
        if (parts.phase == PARTS)
            part(blockIdx.z)[SIDE * SIDE + threadIdx.x] = sum;
        else if (place.row * SIDE + threadIdx.x < M)
            row_store(place.row * SIDE + threadIdx.x, sum);
    }

    // Rows first.. of the piece.
    template <class Fetch, class Store>
    DEVICE_MEMBER void write(int first, const Epilogue<Fetch, Store>& epilogue) const {
        if (parts.phase == PARTS)
            write_part(first);
        else if (is_wide(N))
            write_runs<true>(first, epilogue);
        else
            write_runs<false>(first, epilogue);
    }

    DEVICE_MEMBER void write_part(int first) const {
        for (int at = threadIdx.x; at < ROWS * RUNS; at += THREADS) {
            const int row = at / RUNS, column = at % RUNS * WIDTH;
            ::store(part(blockIdx.z) + (first + row) * SIDE + column, sum_of_groups(row, column).value);
        }
    }

    template <bool WIDE, class Fetch, class Store>
    DEVICE_MEMBER void write_runs(int first, const Epilogue<Fetch, Store>& epilogue) const {
        constexpr int EACH = (ROWS * RUNS + THREADS - 1) / THREADS, MOST = EACH < MOST_FETCHED ? EACH : MOST_FETCHED;
        constexpr int AT_ONCE = WIDE ? MOST : 1;
        static_assert(EACH % AT_ONCE == 0, "");
#pragma unroll 1
        for (int begin = threadIdx.x; begin < ROWS * RUNS; begin += AT_ONCE * THREADS) {
            decltype(fetch<WIDE>(0, 0, epilogue)) fetched[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i) {
                const int at = begin + i * THREADS;
                fetched[i] = fetch<WIDE>(first + at / RUNS, at % RUNS * WIDTH, epilogue);
            }
#pragma unroll
            for (int i = 0; i < AT_ONCE; ++i) {
                const int at = begin + i * THREADS, row = at / RUNS, column = at % RUNS * WIDTH;
                Run sums = sum_of_groups(row, column);
                store<WIDE>(first + row, column, sums, fetched[i], epilogue);
            }
        }
    }

    DEVICE_MEMBER Run sum_of_groups(int row, int column) const {
        Run sums = {}, others;
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            load(others.value, shared + (group * ROWS + row) * ROW + column);
            for (int i = 0; i < WIDTH; ++i) sums.value[i] += others.value[i];
        }
        return sums;
    }

    // The second launch, ceil(SIDE * RUNS / THREADS) blocks along z.
    template <class Fetch, class Store, class RowStore>
    DEVICE_MEMBER void add_parts(const Epilogue<Fetch, Store>& epilogue, const RowStore& row_store, bool sums_rows) const {
        const int at = blockIdx.z * THREADS + threadIdx.x;
        if (at >= SIDE * RUNS) return;
        if (is_wide(N))
            add_run<true>(at / RUNS, at % RUNS * WIDTH, epilogue);
        else
            add_run<false>(at / RUNS, at % RUNS * WIDTH, epilogue);
        if (!sums_rows || at >= SIDE || place.row * SIDE + at >= M) return;
        float sum = 0.0f;
        for (int z = 0; z < parts.count; ++z) sum += part(z)[SIDE * SIDE + at];
        row_store(place.row * SIDE + at, sum);
    }

    template <bool WIDE, class Fetch, class Store>
    DEVICE_MEMBER void add_run(int row, int column, const Epilogue<Fetch, Store>& epilogue) const {
        const auto fetched = fetch<WIDE>(row, column, epilogue);
        Run sums = {}, others;
#pragma unroll 4
        for (int z = 0; z < parts.count; ++z) {
            load(others.value, part(z) + row * SIDE + column);
            for (int i = 0; i < WIDTH; ++i) sums.value[i] += others.value[i];
        }
        store<WIDE>(row, column, sums, fetched, epilogue);
    }

    // The epilogue's, of a row and column of the piece; nothing outside of C. WIDE: its columns are a multiple of WIDTH.
    template <bool WIDE, class Fetch, class Store>
    DEVICE_MEMBER auto fetch(int row, int column, const Epilogue<Fetch, Store>& epilogue) const {
        const int64_t r = place.row * SIDE + row, c = place.column * SIDE + column, count = WIDE ? WIDTH : N - c;
        using Fetched = decltype(epilogue.fetch(r, c, count, WIDE));
        return r < M && c < N ? epilogue.fetch(r, c, count, WIDE) : Fetched{};
    }

    template <bool WIDE, class Fetch, class Store, class Fetched>
    DEVICE_MEMBER void store(int row, int column, Run& sums, const Fetched& fetched,
                             const Epilogue<Fetch, Store>& epilogue) const {
        const int64_t r = place.row * SIDE + row, c = place.column * SIDE + column, count = WIDE ? WIDTH : N - c;
        if (r < M && c < N) epilogue.store(r, c, sums, fetched, count, WIDE);
    }
};

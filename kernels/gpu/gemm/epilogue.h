// The epilogue of a GEMM: how a block's sums leave it.
//
// The sums go through shared memory, so that a thread has WIDTH neighbours of a row, a segment. Then the fused
// operation combines each segment with what it fetches (a bias, a gradient) and stores it.
#pragma once
#include "gpu/simt/vector_io.h"
#include "gpu/gemm/block_schedule.h"
#include "gpu/gemm/split_k.h"

// COUNT neighbours of a row.
template <int COUNT>
struct Values {
    float value[COUNT];
    DEVICE_MEMBER float operator[](int i) const { return value[i]; }
};
using Segment = Values<WIDTH>;

// Two neighbours in bf16, converted when they are used.
struct PackedPair {
    uint32_t bits;
    DEVICE_MEMBER float operator[](int i) const { return bits_float(i ? bits & 0xFFFF0000u : bits << 16); }
};

// What a GEMM does with each segment of C. fetch loads what the sums are combined with; combine computes the elements of
// OUTPUTS outputs from a sum and what was fetched for it; targets and columns say where they go. count: how many of the
// segment's columns are inside C; wide: all of them, at an address for vector loads.
// Fetching is apart because a thread issues several fetches before its first store: the compiler could not move a fetch
// before a store, which might write what the fetch reads, so each fetch would wait for the store before it.
template <class T, int COUNT, class Source, class Combine>
struct Fused {
    static constexpr int OUTPUTS = COUNT;
    T* targets[OUTPUTS];
    int64_t columns;
    Source source;
    Combine combine;

    template <int EACH = WIDTH>
    DEVICE_MEMBER auto fetch(int64_t row, int64_t column, int64_t count, bool wide) const {
        return source.template fetch<EACH>(row, column, count, wide);
    }

    // The elements of the outputs at a place in C.
    DEVICE_MEMBER void element(int, int, float sum, float fetched, float (&outputs)[OUTPUTS]) const {
        combine(sum, fetched, outputs);
    }

    template <int EACH, class Fetched>
    DEVICE_MEMBER void store(int64_t row, int64_t column, const Values<EACH>& sums, const Fetched& fetched,
                             int64_t count, bool wide) const {
        Values<EACH> outputs[OUTPUTS];
        for (int i = 0; i < EACH; ++i) {
            float each[OUTPUTS];
            combine(sums.value[i], fetched[i], each);
            for (int o = 0; o < OUTPUTS; ++o) outputs[o].value[i] = each[o];
        }
        for (int o = 0; o < OUTPUTS; ++o)
            store_some(targets[o] + row * columns + column, outputs[o].value, count, wide);
    }
};
template <class T, int OUTPUTS, class Source, class Combine>
DEVICE Fused<T, OUTPUTS, Source, Combine> fused(T* const (&targets)[OUTPUTS], int64_t columns, const Source& source,
                                                const Combine& combine) {
    Fused<T, OUTPUTS, Source, Combine> operation = {{}, columns, source, combine};
    for (int o = 0; o < OUTPUTS; ++o) operation.targets[o] = targets[o];
    return operation;
}

// What a GEMM does with the sums of A's rows: nothing, or add them to `target` unless that is null.
struct NoRowSums {
    static constexpr bool POSSIBLE = false;
    DEVICE_MEMBER bool requested() const { return false; }
    DEVICE_MEMBER void operator()(int64_t, float) const {}
};
struct AddRowSums {
    static constexpr bool POSSIBLE = true;
    float* target;
    DEVICE_MEMBER bool requested() const { return target; }
    DEVICE_MEMBER void operator()(int64_t row, float sum) const { target[row] += sum; }
};

// ROWS: rows of the tile that shared memory holds at once. GROUPS: copies of them, one per group of waves that shares
// K, to be added up. MOST_FETCHED: segments that a thread has registers to fetch before it stores the first.
template <int SIDE, int ROWS, int GROUPS, int BLOCK_THREADS, int MOST_FETCHED>
struct Epilogue {
    static constexpr int ROW = SIDE + 4, BYTES = GROUPS * ROWS * ROW * 4;  // + 4: neighbouring rows use different banks
    static constexpr int SEGMENTS = SIDE / WIDTH;                          // of a row
    static constexpr int SLICE = SIDE * SIDE + SIDE;  // floats in the workspace: a tile's sums, then its row sums
    float* shared;
    SplitK split_k;
    BlockTile tile;
    int64_t M, N;

    // A slice's sums of this tile.
    DEVICE_MEMBER float* slice(int64_t z) const {
        return split_k.workspace + ((z * gridDim.y + tile.row) * gridDim.x + tile.column) * SLICE;
    }

    // Stores the sums of A's rows. Each group has left its own at shared[group * SIDE].
    template <class RowStore>
    DEVICE_MEMBER void write_row_sums(const RowStore& row_store) const {
        if (threadIdx.x >= SIDE) return;
        float sum = 0.0f;
        for (int group = 0; group < GROUPS; ++group) sum += shared[group * SIDE + threadIdx.x];
        if (split_k.phase == K_SLICES)
            slice(blockIdx.z)[SIDE * SIDE + threadIdx.x] = sum;
        else if (tile.row * SIDE + threadIdx.x < M)
            row_store(tile.row * SIDE + threadIdx.x, sum);
    }

    // Stores ROWS rows of the tile, from row `first` on.
    template <class Operation>
    DEVICE_MEMBER void write(int first, const Operation& fused) const {
        if (split_k.phase == K_SLICES)
            write_slice(first);
        else if (is_wide(N))
            write_segments<true>(first, fused);
        else
            write_segments<false>(first, fused);
    }

    DEVICE_MEMBER void write_slice(int first) const {
        for (int index = threadIdx.x; index < ROWS * SEGMENTS; index += BLOCK_THREADS) {
            const int row = index / SEGMENTS, column = index % SEGMENTS * WIDTH;
            ::store(slice(blockIdx.z) + (first + row) * SIDE + column, sum_of_groups(row, column).value);
        }
    }

    template <bool WIDE, class Operation>
    DEVICE_MEMBER void write_segments(int first, const Operation& fused) const {
        constexpr int EACH = (ROWS * SEGMENTS + BLOCK_THREADS - 1) / BLOCK_THREADS;  // segments per thread
        constexpr int MOST = EACH < MOST_FETCHED ? EACH : MOST_FETCHED, BATCH = WIDE ? MOST : 1;
        static_assert(EACH % BATCH == 0, "");
#pragma unroll 1
        for (int begin = threadIdx.x; begin < ROWS * SEGMENTS; begin += BATCH * BLOCK_THREADS) {
            decltype(fetch<WIDE>(0, 0, fused)) fetched[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                const int index = begin + i * BLOCK_THREADS;
                fetched[i] = fetch<WIDE>(first + index / SEGMENTS, index % SEGMENTS * WIDTH, fused);
            }
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                const int index = begin + i * BLOCK_THREADS, row = index / SEGMENTS, column = index % SEGMENTS * WIDTH;
                Segment sums = sum_of_groups(row, column);
                store<WIDE>(first + row, column, sums, fetched[i], fused);
            }
        }
    }

    DEVICE_MEMBER Segment sum_of_groups(int row, int column) const {
        Segment sums = {}, others;
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            load(others.value, shared + (group * ROWS + row) * ROW + column);
            for (int i = 0; i < WIDTH; ++i) sums.value[i] += others.value[i];
        }
        return sums;
    }

    // The second launch: ceil(SIDE * SEGMENTS / BLOCK_THREADS) blocks along z.
    template <class Operation, class RowStore>
    DEVICE_MEMBER void add_slices(const Operation& fused, const RowStore& row_store, bool sums_rows) const {
        const int index = blockIdx.z * BLOCK_THREADS + threadIdx.x;
        if (index >= SIDE * SEGMENTS) return;
        if (is_wide(N))
            add_segment<true>(index / SEGMENTS, index % SEGMENTS * WIDTH, fused);
        else
            add_segment<false>(index / SEGMENTS, index % SEGMENTS * WIDTH, fused);
        if (!sums_rows || index >= SIDE || tile.row * SIDE + index >= M) return;
        float sum = 0.0f;
        for (int z = 0; z < split_k.slice_count; ++z) sum += slice(z)[SIDE * SIDE + index];
        row_store(tile.row * SIDE + index, sum);
    }

    template <bool WIDE, class Operation>
    DEVICE_MEMBER void add_segment(int row, int column, const Operation& fused) const {
        const auto fetched = fetch<WIDE>(row, column, fused);
        Segment sums = {}, others;
#pragma unroll 4
        for (int z = 0; z < split_k.slice_count; ++z) {
            load(others.value, slice(z) + row * SIDE + column);
            for (int i = 0; i < WIDTH; ++i) sums.value[i] += others.value[i];
        }
        store<WIDE>(row, column, sums, fetched, fused);
    }

    // The fused operation at a row and column of the tile, if that is inside C. WIDE: N is a multiple of WIDTH.
    template <bool WIDE, class Operation>
    DEVICE_MEMBER auto fetch(int row, int column, const Operation& fused) const {
        const int64_t r = tile.row * SIDE + row, c = tile.column * SIDE + column, count = WIDE ? WIDTH : N - c;
        using Fetched = decltype(fused.fetch(r, c, count, WIDE));
        return r < M && c < N ? fused.fetch(r, c, count, WIDE) : Fetched{};
    }

    template <bool WIDE, class Operation, class Fetched>
    DEVICE_MEMBER void store(int row, int column, Segment& sums, const Fetched& fetched, const Operation& fused) const {
        const int64_t r = tile.row * SIDE + row, c = tile.column * SIDE + column, count = WIDE ? WIDTH : N - c;
        if (r < M && c < N) fused.store(r, c, sums, fetched, count, WIDE);
    }
};

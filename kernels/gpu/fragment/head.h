// One attention head's rows as tiles in shared memory and as fragments: the queries, keys, values or their gradients of which a
// block owns OWN and a wave SQUARE, and those of the others, which pass by a tile at a time.
#pragma once
#include "fragment.h"
#include "side.h"

constexpr int WAVES = 4, THREADS = WAVES * WAVE, SQUARE = 16, OWN = WAVES * SQUARE;

using Operand = Fragment::Operand;
using Sum = Fragment::Sum;

constexpr int CHANNELS = SIDE;  // in a tile, 32, 64 or 128; those from D on are zero
constexpr int OWN_TILE = Fragment::ROOMY ? 0 : OWN * CHANNELS;  // elements of own rows that stay in shared memory
constexpr int MEMORY_BYTES = (Fragment::ROOMY || CHANNELS < 128 ? 32 : 48) << 10;

// With which squares of a tile a wave computes. With all of them there is nothing to ask, so that the compiler can let the
// products of one square run beside those of another.
struct AllSquares {
    static constexpr bool RAGGED = false;
    DEVICE_MEMBER constexpr bool has(int) const { return true; }
};
struct SomeSquares {
    static constexpr bool RAGGED = true;
    int first, last;
    DEVICE_MEMBER bool has(int j) const { return first <= j && j < last; }
};

// One head's rows.
struct Head {
    static constexpr int OTHERS = (CHANNELS <= 64 ? 64 : 32) / (Fragment::ROOMY ? 1 : 2), TILE = OTHERS * CHANNELS;
    static constexpr int CHUNKS = CHANNELS / WIDTH, SQUARES = CHANNELS / SQUARE;
    using Layout = Tile<CHUNKS>;

    // Copies a head's rows, ROWS at a time from `first` on, into tiles; rows from S on and channels from D on are zero.
    template <int ROWS>
    struct Rows {
        static constexpr int EACH = ROWS * CHUNKS / THREADS, STEP = THREADS / CHUNKS;  // a thread's chunks, rows between them
        static_assert(STEP % 8 == 0, "the permutation of a tile's chunks repeats after 8 rows");
        const act* next;  // the thread's first chunk in the coming tile
        int64_t stride;
        int left, channels;  // rows and channels from there on
        bool wide;

        DEVICE_MEMBER Rows(const act* source, int64_t row_stride, int64_t first, int64_t S, int64_t D) {
            const int row = threadIdx.x / CHUNKS, channel = threadIdx.x % CHUNKS * WIDTH;
            next = source + (first + row) * row_stride + channel;
            stride = row_stride;
            left = static_cast<int>(S - first) - row;
            channels = static_cast<int>(D) - channel;
            wide = is_wide(D);
        }

        DEVICE_MEMBER void copy(bf16* tile) {
            bf16* place = tile + Layout::place(threadIdx.x / CHUNKS, threadIdx.x % CHUNKS);
            if (wide) {
#pragma unroll
                for (int e = 0; e < EACH; ++e)
                    copy_chunk(place + e * STEP * Layout::ROW, next + e * STEP * stride, left > e * STEP && channels > 0);
            } else {
#pragma unroll 1
                for (int e = 0; e < EACH; ++e)
                    copy_elements(place + e * STEP * Layout::ROW, next + e * STEP * stride, left > e * STEP ? channels : 0);
            }
            next += ROWS * stride;
            left -= ROWS;
        }
    };

    // The wave's own rows of a tile, in registers if these have room for them.
    struct Own {
        Operand kept[Fragment::ROOMY ? SQUARES : 1];
        bf16* tile;

        DEVICE_MEMBER explicit Own(bf16* source) : tile(source) {
            if constexpr (Fragment::ROOMY)
                for (int c = 0; c < SQUARES; ++c) kept[c] = load(c);
        }
        DEVICE_MEMBER Operand load(int c) const { return Fragment::load(Layout{tile}, threadIdx.x / WAVE * SQUARE, c * SQUARE); }
        DEVICE_MEMBER Operand square(int c) const {
            if constexpr (Fragment::ROOMY)
                return kept[c];
            else
                return load(c);
        }
    };

    // products = own rows . rows of a tile
    template <class Squares>
    static DEVICE_MEMBER void multiply(Sum (&products)[OTHERS / SQUARE], const Own& own, bf16* tile, const Squares& squares) {
#pragma unroll
        for (int j = 0; j < OTHERS / SQUARE; ++j) {
            products[j] = Sum{};
            if (squares.has(j))
#pragma unroll
                for (int c = 0; c < SQUARES; ++c)
                    Fragment::multiply(products[j], own.square(c), Fragment::load(Layout{tile}, j * SQUARE, c * SQUARE));
        }
    }

    // sums += weights . rows of a tile, the weights rounded to bf16
    template <class Squares>
    static DEVICE_MEMBER void mix(Sum (&sums)[SQUARES], const Sum (&weights)[OTHERS / SQUARE], bf16* tile, bf16* scratch,
                                  const Squares& squares) {
#pragma unroll
        for (int j = 0; j < OTHERS / SQUARE; ++j)
            if (squares.has(j)) {
                const Operand left = Fragment::pack(weights[j], scratch);
#pragma unroll
                for (int c = 0; c < SQUARES; ++c)
                    Fragment::multiply(sums[c], left, Fragment::load_transposed(Layout{tile}, c * SQUARE, j * SQUARE));
            }
    }

    // The wave's own rows to a target, those before S, by way of a tile that no wave reads any more.
    static DEVICE_MEMBER void write(act* target, const Sum (&sums)[SQUARES], const float (&factor)[Fragment::SLOTS], bf16* tile,
                                    int64_t stride, int64_t first, int64_t S, int64_t D) {
        const int own = threadIdx.x / WAVE * SQUARE;
        wave_barrier();
#pragma unroll
        for (int c = 0; c < SQUARES; ++c)
#pragma unroll
            for (int e = 0; e < Fragment::SIZE; ++e) {
                const int slot = Fragment::slot(e), column = c * SQUARE + Fragment::column(e);
                narrow(*Layout{tile}.at(own, Fragment::row(slot), column), sums[c].value[e] * factor[slot]);
            }
        wave_barrier();
#pragma unroll
        for (int place = threadIdx.x % WAVE; place < SQUARE * CHUNKS; place += WAVE) {
            const int row = place / CHUNKS, column = place % CHUNKS * WIDTH;
            float values[WIDTH];
            load(values, Layout{tile}.at(own, row, column));
            if (first + own + row < S && column < D)
                store_some(target + (first + own + row) * stride + column, values, D - column, is_wide(D));
        }
    }
};

// How many squares of rows from `at` on lie before `end`, at most all of a tile's.
DEVICE int squares_before(int64_t end, int64_t at) {
    const int64_t squares = (end - at + SQUARE - 1) / SQUARE;
    return squares < Head::OTHERS / SQUARE ? static_cast<int>(squares) : Head::OTHERS / SQUARE;
}

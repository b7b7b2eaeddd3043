// The rows of one attention head as tiles in shared memory and as operands of an mma.
//
// A block owns a resident tile of RESIDENT_ROWS rows, MMA_TILE per wave, and visits tiles of STREAMED_ROWS rows.
// The resident tile is the query tile in forward and for dq; the streamed ones are then key-value tiles. For dk and dv
// it is the other way round: the key-value tile is resident, and query tiles are streamed.
#pragma once
#include "gpu/mma/mma_sync.h"
#ifndef HEAD_CHANNELS
#define HEAD_CHANNELS 64  // channels that a tile has room for: 32, 64 or 128; those from D on are zero
#endif

constexpr int RESIDENT_ROWS = MMA_WAVES * MMA_TILE;

using Operand = Mma::Operand;
using Sum = Mma::Sum;

constexpr int MEMORY_BYTES = 32 << 10;

// Which mma tiles of a streamed tile a wave computes with. AllMmaTiles needs no test, so that the compiler can overlap
// the instructions of one mma tile with those of another.
struct AllMmaTiles {
    static constexpr bool RAGGED = false;
    DEVICE_MEMBER constexpr bool has(int) const { return true; }
};
struct SomeMmaTiles {
    static constexpr bool RAGGED = true;
    int first, last;
    DEVICE_MEMBER bool has(int j) const { return first <= j && j < last; }
};

struct Head {
    static constexpr int STREAMED_ROWS = HEAD_CHANNELS <= 64 ? 64 : 32;
    static constexpr int STREAMED_TILE = STREAMED_ROWS * HEAD_CHANNELS;  // elements
    static constexpr int CHUNKS = HEAD_CHANNELS / WIDTH;
    static constexpr int ALONG = HEAD_CHANNELS / MMA_TILE, DOWN = STREAMED_ROWS / MMA_TILE;  // mma tiles
    using Layout = SharedTile<CHUNKS>;

    // Loads a head's rows from `first` on into one tile after another, ROWS rows each. Rows from S on and channels
    // from D on become zero.
    template <int ROWS>
    struct TileLoader {
        static constexpr int EACH = ROWS * CHUNKS / MMA_THREADS;  // chunks per thread
        static constexpr int STEP = MMA_THREADS / CHUNKS;         // rows between the chunks of a thread
        static_assert(STEP % 8 == 0, "the permutation of a tile's chunks repeats after 8 rows");
        const act* next;  // the thread's first chunk of the next tile
        int64_t stride;
        int left, channels;  // rows and channels from there to the end
        bool wide;

        DEVICE_MEMBER TileLoader(const act* source, int64_t row_stride, int64_t first, int64_t S, int64_t D) {
            const int row = threadIdx.x / CHUNKS, channel = threadIdx.x % CHUNKS * WIDTH;
            next = source + (first + row) * row_stride + channel;
            stride = row_stride;
            left = static_cast<int>(S - first) - row;
            channels = static_cast<int>(D) - channel;
            wide = is_wide(D);
        }

        DEVICE_MEMBER void load(bf16* tile) {
            bf16* target = tile + Layout::offset(threadIdx.x / CHUNKS, threadIdx.x % CHUNKS);
            if (wide) {
#pragma unroll
                for (int e = 0; e < EACH; ++e)
                    copy_chunk(target + e * STEP * Layout::ROW, next + e * STEP * stride,
                               left > e * STEP && channels > 0);
            } else {
#pragma unroll 1
                for (int e = 0; e < EACH; ++e)
                    copy_elements(target + e * STEP * Layout::ROW, next + e * STEP * stride,
                                  left > e * STEP ? channels : 0);
            }
            next += ROWS * stride;
            left -= ROWS;
        }
    };

    // MMA_TILE rows of a tile, in registers: those from `first` on, or the wave's rows of a resident tile.
    struct Resident {
        Operand operand[ALONG];

        DEVICE_MEMBER explicit Resident(bf16* tile) : Resident(tile, threadIdx.x / WAVE * MMA_TILE) {}
        DEVICE_MEMBER Resident(bf16* tile, int first) {
            for (int c = 0; c < ALONG; ++c) operand[c] = Mma::load(Layout{tile}, first, c * MMA_TILE);
        }
    };

    // products = A B^T: the wave's resident rows times the rows of a streamed tile. Forward: Q K^T.
    template <class MmaTiles>
    static DEVICE_MEMBER void multiply_ABt(Sum (&products)[DOWN], const Resident& a, bf16* b, const MmaTiles& tiles) {
#pragma unroll
        for (int j = 0; j < DOWN; ++j) {
            products[j] = Sum{};
            if (tiles.has(j))
#pragma unroll
                for (int c = 0; c < ALONG; ++c)
                    Mma::multiply(products[j], a.operand[c], Mma::load_b(Layout{b}, j * MMA_TILE, c * MMA_TILE));
        }
    }

    // sums += A B: A rounded to bf16, B a streamed tile. Forward: P V.
    template <class MmaTiles>
    static DEVICE_MEMBER void accumulate_AB(Sum (&sums)[ALONG], const Sum (&a)[DOWN], bf16* b, const MmaTiles& tiles) {
#pragma unroll
        for (int j = 0; j < DOWN; ++j)
            if (tiles.has(j)) {
                const Operand left = Mma::pack(a[j]);
#pragma unroll
                for (int c = 0; c < ALONG; ++c)
                    Mma::multiply(sums[c], left, Mma::load_b_transposed(Layout{b}, c * MMA_TILE, j * MMA_TILE));
            }
    }

    // Stores the wave's resident rows below S, each times its factor, through a tile that no wave reads any more.
    static DEVICE_MEMBER void store(act* target, const Sum (&sums)[ALONG], const float (&factor)[Mma::SLOTS],
                                    bf16* tile, int64_t stride, int64_t first, int64_t S, int64_t D) {
        const int wave_row = threadIdx.x / WAVE * MMA_TILE;
        wave_barrier();
#pragma unroll
        for (int c = 0; c < ALONG; ++c)
#pragma unroll
            for (int e = 0; e < Mma::SIZE; ++e) {
                const int slot = Mma::slot(e), column = c * MMA_TILE + Mma::column(e);
                narrow(*Layout{tile}.at(wave_row, Mma::row(slot), column), sums[c].value[e] * factor[slot]);
            }
        wave_barrier();
#pragma unroll
        for (int chunk = threadIdx.x % WAVE; chunk < MMA_TILE * CHUNKS; chunk += WAVE) {
            const int row = chunk / CHUNKS, column = chunk % CHUNKS * WIDTH;
            float values[WIDTH];
            ::load(values, Layout{tile}.at(wave_row, row, column));
            if (first + wave_row + row < S && column < D)
                store_some(target + (first + wave_row + row) * stride + column, values, D - column, is_wide(D));
        }
    }
};

// How many mma tiles of the streamed tile that starts at row `at` have rows below `end`.
DEVICE int mma_tiles_below(int64_t end, int64_t at) {
    const int64_t tiles = (end - at + MMA_TILE - 1) / MMA_TILE;
    return tiles < Head::DOWN ? static_cast<int>(tiles) : Head::DOWN;
}

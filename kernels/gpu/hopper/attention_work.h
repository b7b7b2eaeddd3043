// Attention's persistent blocks: the order of their work, and how a warpgroup stores its rows.
#pragma once
#include "gpu/hopper/wgmma.h"
#include "gpu/mma/shared_tile.h"
#include "formulas.h"

constexpr int ROWS = 64;  // that a warpgroup owns

// A tile of TMA_QUERIES rows of one head.
struct Work {
    int tile, b, h;
};

// The work that comes `index`-th; false if there is none. The tiles of TMA_HEADS heads come together. Those that have
// most to compute come first: the last ones if last_first, otherwise the first ones.
DEVICE bool work_at(int64_t index, int64_t B, int64_t S, int64_t H, bool last_first, Work& work) {
    const int heads = static_cast<int>(B * H), tiles = static_cast<int>((S + TMA_QUERIES - 1) / TMA_QUERIES);
    if (index >= int64_t{heads} * tiles) return false;
    const int together = TMA_HEADS * tiles, first = static_cast<int>(index / together) * TMA_HEADS;
    const int count = heads - first < TMA_HEADS ? heads - first : TMA_HEADS, left = static_cast<int>(index % together);
    work.tile = last_first ? tiles - 1 - left / count : left / count;
    work.b = (first + left % count) / static_cast<int>(H);
    work.h = (first + left % count) % static_cast<int>(H);
    return true;
}

// Stores the rows of a warpgroup from `first` on that are below S, each times its factor, through shared memory, so that
// a thread stores 16 bytes. target: row 0, `stride` elements before row 1; staging: of this warpgroup.
template <int SUMS>
DEVICE void store_rows(act* target, const float (&sums)[SUMS], const float (&factor)[2], bf16* staging, int64_t stride,
                       int64_t first, int64_t S) {
    constexpr int CHUNKS = 2 * SUMS / WIDTH;
    const int named_barrier = 1 + threadIdx.x / WARPGROUP;
    barrier_of_threads(named_barrier, WARPGROUP);
#pragma unroll
    for (int i = 0; i < SUMS; i += 2) {
        const int h = i / 2 % 2;
        const float pair[2] = {sums[i] * factor[h], sums[i + 1] * factor[h]};
        store(staging + SharedTile<CHUNKS>::offset(sums_row() + 8 * h, i / 4) + threadIdx.x % 4 * 2, pair);
    }
    barrier_of_threads(named_barrier, WARPGROUP);
#pragma unroll
    for (int i = threadIdx.x % WARPGROUP; i < ROWS * CHUNKS; i += WARPGROUP) {
        const int64_t row = first + i / CHUNKS;
        if (row < S)
            *reinterpret_cast<Vector*>(target + row * stride + i % CHUNKS * WIDTH) =
                *reinterpret_cast<const Vector*>(staging + SharedTile<CHUNKS>::offset(i / CHUNKS, i % CHUNKS));
    }
}

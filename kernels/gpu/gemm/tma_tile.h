// The tiles of mainloop_tma.h: their sizes, their sums in the workspace, the sums of A's rows.
#pragma once
#include "gpu/gemm/epilogue_tma.h"
#include "gpu/hopper/wgmma.h"

constexpr int WARPGROUP_ROWS = 64, MULTIPLIERS = 2;
constexpr int STAGE_K = TMA_STAGE_K, TILE_A = TMA_ROWS * STAGE_K, TILE_B = TMA_COLUMNS * STAGE_K;  // elements
constexpr int STAGE_BYTES = 2 * (TILE_A + TILE_B);
static_assert(TMA_ROWS == MULTIPLIERS * WARPGROUP_ROWS && TMA_THREADS == (MULTIPLIERS + 1) * WARPGROUP, "");
constexpr int STAGING = TMA_STAGES * STAGE_BYTES / 2;  // where the boxes of outputs begin, in elements
static_assert(TMA_SHARED_BYTES == 2 * (STAGING + MULTIPLIERS * STAGING_BOXES * BOX), "");

// A tile's sums in the workspace: those of each thread, four by four, then the sums of A's rows.
struct Slot {
    static constexpr int SIZE = TMA_ROWS * TMA_COLUMNS + TMA_ROWS, GROUPS = TMA_COLUMNS / 8;  // of four sums
    float* data;

    DEVICE_MEMBER Slot(float* workspace, int item, int block)
        : data(workspace + (int64_t{item} * TMA_CLUSTER + block) * SIZE) {}
    DEVICE_MEMBER Vector* sums(int warpgroup, int group, int thread) const {
        return reinterpret_cast<Vector*>(data) + (warpgroup * GROUPS + group) * WARPGROUP + thread;
    }
    DEVICE_MEMBER float* row_sums() const { return data + TMA_ROWS * TMA_COLUMNS; }
};

// The sums of the 64 rows of A that a warpgroup multiplies, whose tile has rows of k. While the tensor cores work, a
// thread adds up 8 neighbours of every 16th k.
template <class RowStore>
struct RowSums {
    bool requested;
    float sums[RowStore::POSSIBLE ? WIDTH : 1];

    DEVICE_MEMBER RowSums(const RowStore& row_store, bool first_column) : sums{} {
        requested = RowStore::POSSIBLE && first_column && row_store.requested();
    }

    DEVICE_MEMBER void add(const bf16* tile) {
        if constexpr (RowStore::POSSIBLE)
            if (requested)
#pragma unroll
                for (int k = 0; k < STAGE_K; k += WARPGROUP / 8) {
                    float values[WIDTH];
                    load(values, tile + SharedTile<8>::offset(k + threadIdx.x % WARPGROUP / 8, threadIdx.x % 8));
                    for (int i = 0; i < WIDTH; ++i) sums[i] += values[i];
                }
    }

    // Waits until all threads have read the tiles so far: wgmma_wait says so of its own reads only.
    DEVICE_MEMBER void join() const {
        if constexpr (RowStore::POSSIBLE)
            if (requested) barrier_of_threads(1 + threadIdx.x / WARPGROUP, WARPGROUP);
    }

    // Calls store(row, sum) for each of the 64 rows. shared: 4 x 64 floats of this warpgroup.
    template <class Store>
    DEVICE_MEMBER void write(float* shared, const Store& store) {
        if constexpr (RowStore::POSSIBLE)
            if (requested) {
                const int thread = threadIdx.x % WARPGROUP, warp = thread / 32;
                for (int i = 0; i < WIDTH; ++i) {
                    sums[i] += wave_exchange(sums[i], 8);
                    sums[i] += wave_exchange(sums[i], 16);
                }
                if (thread % 32 < 8) ::store(shared + warp * 64 + thread % 32 * WIDTH, sums);
                join();
                if (thread < 64)
                    store(thread,
                          (shared[thread] + shared[64 + thread]) + (shared[128 + thread] + shared[192 + thread]));
                join();  // before the next tile's sums
            }
    }
};

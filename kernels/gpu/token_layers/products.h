// Products of a block's 64 rows by weights, for kernels that keep these rows in shared memory. One thread has the copy
// engine fill a ring with weights and load tiles of rows; two warpgroups multiply, each for half of CHANNELS columns. A
// cluster of two blocks reads weights together: each block loads half of a stage for both. PTX ISA: "wgmma",
// "cp.async.bulk.tensor".
#pragma once
#include "gpu/hopper/tensor_map.h"
#include "gpu/hopper/wgmma.h"
#include "gpu/mma/shared_tile.h"

constexpr int C = CHANNELS, F = HIDDEN;
constexpr int ROWS = TOKEN_LAYERS_ROWS, CLUSTER = TOKEN_LAYERS_CLUSTER, MULTIPLIERS = 2;
constexpr int OWN = C / MULTIPLIERS, SUMS = OWN / 2;  // columns of a warpgroup, sums of a thread
constexpr int SIDE = 64, BOX = SIDE * SIDE, BOXES = C / SIDE, TILE = BOXES * BOX;
constexpr int STAGES = C > 128 ? 3 : 6, TILES = 3;
// For sums over rows and columns, LANES lanes have a row, WIDTH neighbours each, and TEAMS of them have a row each.
constexpr int LANES = C / WIDTH, TEAMS = MULTIPLIERS * WARPGROUP / LANES;
constexpr int VECTORS = 9 * C + F;  // elements of biases, gammas and betas in forward passes, which need more

struct Memory {
    bf16 weights[STAGES][TILE];
    bf16 tiles[TILES][TILE];        // 64 rows, in boxes of 64 columns
    float of_columns[TEAMS][2][C];  // sums of the columns of some rows
    act vectors[VECTORS];
    Barrier full[STAGES], empty[STAGES], tile_full[TILES], tile_empty[TILES], vectors_full;
};
static_assert(sizeof(Memory) <= TOKEN_LAYERS_SHARED_BYTES, "");

// W of y = x W^T has a row for each column of y in forward passes, and for each row of the product in backward ones.
enum Weights { FORWARD, BACKWARD };

DEVICE void init(Memory& memory) {
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; ++stage) {
            memory.full[stage].init(1);
            memory.empty[stage].init(MULTIPLIERS * CLUSTER);
        }
        for (int tile = 0; tile < TILES; ++tile) {
            memory.tile_full[tile].init(1);
            memory.tile_empty[tile].init(MULTIPLIERS);
        }
        memory.vectors_full.init(1);
        fence_barrier_init();
    }
    cluster_barrier();
}

// The thread that has the copy engine load everything. It names products and tiles in the order of the multipliers.
struct Loader {
    Memory& memory;
    int first_row;
    RingPlace<STAGES> place;
    uint32_t loads = 0;  // of each tile so far, a bit each, modulo 2

    // The weights of a product: C of K from `k` on, C columns from `column` on.
    template <Weights WAY>
    DEVICE_MEMBER void product(const TensorMap& weights, int k, int column) {
        const int block = block_of_cluster(), both = (1 << CLUSTER) - 1;
#pragma unroll 1
        for (int begin = k; begin < k + C; begin += SIDE, place.advance()) {
            memory.empty[place.stage].wait(place.parity ^ 1);
            Barrier& full = memory.full[place.stage];
            full.arrive_expecting(2 * TILE);
            for (int box = block * BOXES / CLUSTER; box < (block + 1) * BOXES / CLUSTER; ++box) {
                const int at = column + box * SIDE;
                weights.load(memory.weights[place.stage] + box * BOX, full, WAY == FORWARD ? at : begin,
                             WAY == FORWARD ? begin : at, both);
            }
        }
    }

    // A tile of C columns of the block's rows, once the multipliers have used what it held.
    DEVICE_MEMBER void tile(int tile, const TensorMap& rows, int column = 0) {
        memory.tile_empty[tile].wait(loads >> tile & 1 ^ 1);
        loads ^= 1u << tile;
        memory.tile_full[tile].arrive_expecting(2 * TILE);
#pragma unroll 1
        for (int box = 0; box < BOXES; ++box)
            rows.load(memory.tiles[tile] + box * BOX, memory.tile_full[tile], first_row, column + box * SIDE);
    }

    // Arrays of so many bytes each go to `vectors`, one after another; null ones are left out.
    template <int COUNT>
    DEVICE_MEMBER void vectors(const void* const (&sources)[COUNT], const int (&sizes)[COUNT]) {
        int sum = 0;
        for (int i = 0; i < COUNT; ++i) sum += sources[i] ? sizes[i] : 0;
        memory.vectors_full.arrive_expecting(sum);
        char* target = reinterpret_cast<char*>(memory.vectors);
        for (int i = 0; i < COUNT; target += sizes[i++])
            if (sources[i]) copy_bytes(target, sources[i], sizes[i], memory.vectors_full);
    }
};

struct Multiplier {
    Memory& memory;
    RingPlace<STAGES> place;
    uint32_t waits = 0;  // for each tile so far, a bit each, modulo 2

    // sums (+)= rows of a tile times the loader's next weights.
    template <Weights WAY>
    DEVICE_MEMBER void product(float (&sums)[SUMS], int tile, bool add = false) {
        const int warpgroup = threadIdx.x / WARPGROUP;
        int previous = 0;
#pragma unroll
        for (int begin = 0; begin < C; begin += SIDE, place.advance()) {
            memory.full[place.stage].wait(place.parity);
            const bf16* rows = memory.tiles[tile] + begin / SIDE * BOX;
            const bf16* own = memory.weights[place.stage] + warpgroup * OWN * SIDE;  // rows of a box, or whole boxes
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < SIDE; k += 16)
                wgmma<0, WAY == BACKWARD>(sums, descriptor(rows + k, 2 * BOX),
                                          descriptor(own + (WAY == FORWARD ? k : k * SIDE), 2 * BOX),
                                          add || begin + k > 0);
            wgmma_commit();
            if (begin > 0) {
                wgmma_wait<1>();
                release(previous);
            }
            previous = place.stage;
        }
        wgmma_wait<0>();
        wgmma_sums_ready(sums);
        release(previous);
    }

    // Waits until the loader has filled a tile again.
    DEVICE_MEMBER void wait_for(int tile) {
        memory.tile_full[tile].wait(waits >> tile & 1);
        waits ^= 1u << tile;
    }

    // Tells the loader that this warpgroup has used a tile.
    DEVICE_MEMBER void release_tile(int tile) {
        if (threadIdx.x % WARPGROUP == 0) memory.tile_empty[tile].arrive();
    }

    // Tells both blocks that this warpgroup has multiplied a stage.
    DEVICE_MEMBER void release(int stage) {
        if (threadIdx.x % WARPGROUP < CLUSTER) memory.empty[stage].arrive_in(threadIdx.x % WARPGROUP);
    }
};

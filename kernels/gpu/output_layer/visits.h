// The GEMMs of output_layer_loss.hip and output_layer_weight.hip, for rows of CHANNELS, 64 or 128.
//
// A block owns a tile of rows of one matrix, x or the weight, and visits tiles of rows of the other one, as attention's
// queries visit keys that are also the values:  logits = own visited^T;  sums += factors(logits) visited.
// Two warpgroups own 64 rows each. A third one has the copy engine fill a ring of tiles, and brings what belongs to their
// rows, which are the columns of the logits. While the tensor cores compute the logits of a tile and the share of the
// tile before it, a warpgroup computes factors. The blocks of a cluster own the same rows and divide the tiles. Then they
// add their sums up through distributed shared memory, in the order of the blocks.
#pragma once
#include "gpu/hopper/tensor_map.h"
#include "gpu/hopper/wgmma.h"
#include "gpu/simt/vector_io.h"

constexpr float MASKED = -1e30f;
constexpr int TILE = OUTPUT_LAYER_TILE, MULTIPLIERS = 2, MULTIPLYING = MULTIPLIERS * WARPGROUP;
constexpr int ROWS = TILE / MULTIPLIERS;                                       // of a warpgroup
constexpr int BOX = TILE * 64, BOXES = CHANNELS / 64, ELEMENTS = BOXES * BOX;  // of a tile
constexpr int STAGES = 5, CHUNKS = CHANNELS / WIDTH;
constexpr int STRIDE = CHANNELS + WIDTH;  // of rows of sums, so that eight rows are in different banks
static_assert(OUTPUT_LAYER_THREADS == MULTIPLYING + WARPGROUP && TILE == WARPGROUP, "a thread brings a column");
using Place = RingPlace<STAGES>;

// Columns: of a tile of logits; Statistics: of the own rows, for the other blocks.
template <class Columns, class Statistics>
struct Memory {
    union {
        bf16 tiles[STAGES][ELEMENTS];
        float sums[TILE][STRIDE];  // once all tiles have been visited
    };
    bf16 own[ELEMENTS];
    Columns columns[STAGES];
    Statistics statistics;
    Barrier own_full, full[STAGES], empty[STAGES];

    DEVICE_MEMBER void init() {
        static_assert(sizeof(Memory) <= OUTPUT_LAYER_SHARED_BYTES, "");
        if (threadIdx.x == 0) {
            own_full.init(1);
            for (int stage = 0; stage < STAGES; ++stage) {
                full[stage].init(WARPGROUP + 1);      // threads that bring a column, and the copy engine's
                empty[stage].init(MULTIPLYING / 32);  // a lane of each warp, which reads columns too
            }
            fence_barrier_init();
        }
        __syncthreads();
    }
};

// The tiles that this block visits, of those that have so many rows together.
struct Tiles {
    int each, begin, end;

    DEVICE_MEMBER explicit Tiles(int64_t rows) {
        const int all = static_cast<int>((rows + TILE - 1) / TILE);
        each = (all + CLUSTER - 1) / CLUSTER;
        begin = min(static_cast<int>(block_of_cluster()) * each, all);
        end = min(begin + each, all);
    }
};

DEVICE void load_tile(const TensorMap& matrix, bf16* tile, Barrier& full, int row) {
    full.arrive_expecting(2 * ELEMENTS);
    for (int box = 0; box < BOXES; ++box) matrix.load(tile + box * BOX, full, row, box * 64);
}

// Brings the own rows and all tiles. column_of(row) returns what belongs to a row of the visited matrix.
template <class Memory, class ColumnOf>
DEVICE void load_all(Memory& memory, const TensorMap& own, int own_row, const TensorMap& visited, const Tiles& tiles,
                     const ColumnOf& column_of) {
    const int thread = threadIdx.x % WARPGROUP;
    if (thread == 0) load_tile(own, memory.own, memory.own_full, own_row);
    Place place;
    for (int tile = tiles.begin; tile < tiles.end; ++tile, place.advance()) {
        Barrier& full = memory.full[place.stage];
        memory.empty[place.stage].wait(place.parity ^ 1);
        if (thread == 0) load_tile(visited, memory.tiles[place.stage], full, tile * TILE);
        memory.columns[place.stage].set(thread, column_of(int64_t{tile} * TILE + thread));
        full.arrive();
    }
}

// sums_row(), among the rows of both warpgroups.
DEVICE int own_row() { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; }

// The two GEMMs of a warpgroup.
struct Gemms {
    float logits[TILE / 2], sums[CHANNELS / 2];
    uint32_t factors[TILE / 16][4];  // packed

    DEVICE_MEMBER void start_logits(const bf16* own, const bf16* tile) {
        wgmma_fence();
#pragma unroll
        for (int c = 0; c < CHANNELS; c += 16) {
            const int at = c / 64 * BOX + c % 64;
            wgmma<0, 0>(logits, descriptor(own + at, 0), descriptor(tile + at, 0), c > 0);
        }
        wgmma_commit();
    }

    DEVICE_MEMBER void start_sums(const bf16* tile) {
        wgmma_fence();
#pragma unroll
        for (int row = 0; row < TILE; row += 16)
            wgmma<1>(sums, factors[row / 16], descriptor(tile + row * 64, 2 * BOX));
        wgmma_commit();
    }

    DEVICE_MEMBER void pack() {
#pragma unroll
        for (int i = 0; i < TILE / 2; i += 2) factors[i / 8][i / 2 % 4] = bf16_pair(logits[i], logits[i + 1]);
    }
};

// Visits all tiles and leaves the sums in memory. weights.weigh(logits, columns, tile) turns logits into factors, and
// weights.rescale(sums) makes earlier sums relative to the same maximum.
template <class Memory, class Weights>
DEVICE void visit_all(Memory& memory, const Tiles& tiles, Weights& weights) {
    const bf16* own = memory.own + uniform(threadIdx.x / WARPGROUP) * ROWS * 64;
    Gemms gemms;
#pragma unroll
    for (float& sum : gemms.sums) sum = 0.0f;
    memory.own_full.wait(0);
    if (tiles.begin < tiles.end) {
        Place place;
        memory.full[place.stage].wait(place.parity);
        gemms.start_logits(own, memory.tiles[place.stage]);
        wgmma_wait<0>();
        wgmma_sums_ready(gemms.logits);
        weights.weigh(gemms.logits, memory.columns[place.stage], tiles.begin);
        gemms.pack();
        for (int tile = tiles.begin + 1; tile < tiles.end; ++tile) {
            const int previous = place.stage;
            place.advance();
            memory.full[place.stage].wait(place.parity);
            gemms.start_logits(own, memory.tiles[place.stage]);
            gemms.start_sums(memory.tiles[previous]);
            wgmma_wait<1>();
            wgmma_sums_ready(gemms.logits);
            weights.weigh(gemms.logits, memory.columns[place.stage], tile);
            wgmma_wait<0>();
            wgmma_sums_ready(gemms.sums);
            wave_barrier();  // all lanes have read the previous stage
            if (threadIdx.x % 32 == 0) memory.empty[previous].arrive();
            weights.rescale(gemms.sums);
            gemms.pack();
        }
        gemms.start_sums(memory.tiles[place.stage]);
        wgmma_wait<0>();
        wgmma_sums_ready(gemms.sums);
    }
    barrier_of_threads(1, MULTIPLYING);  // no warpgroup reads tiles any more
#pragma unroll
    for (int i = 0; i < CHANNELS / 2; i += 2) {
        const float pair[2] = {gemms.sums[i], gemms.sums[i + 1]};
        store(memory.sums[own_row() + i / 2 % 2 * 8] + sums_column(i), pair);
    }
}

// Calls visit(row, column) for the chunks of WIDTH neighbours of the own rows' sums that this thread adds up.
template <class Visit>
DEVICE void for_chunks(const Visit& visit) {
    for (int i = block_of_cluster() * MULTIPLYING + threadIdx.x; i < TILE * CHUNKS; i += CLUSTER * MULTIPLYING)
        visit(i / CHUNKS, i % CHUNKS * WIDTH);
}

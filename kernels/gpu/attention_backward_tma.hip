// attention_backward in bf16 on Hopper by wgmma and the copy engine, for heads of 64 channels: formulas, layouts and
// traffic as in attention.hip.
//
// A persistent block owns tiles of TMA_QUERIES rows of one head, a warpgroup 64 of them, as operands in registers. It
// visits tiles of 64 rows that another warpgroup has the copy engine load. First the blocks own keys and values, visit
// queries and compute dk and dv. Then they own queries, visit keys and values, and compute dq. So no two blocks add to
// the same number, and the scores are computed twice, as in attention_mma.hip. In names, qk is keys or queries and vdy
// is values or dy, whichever of the two the block owns or visits.
// Grid: a block per multiprocessor. Tiles with the most to visit come first within TMA_HEADS heads.
#include "gpu/hopper/attention_work.h"
#include "gpu/hopper/tensor_map.h"
#include "gpu/hopper/wgmma.h"
#include "gpu/mma/mma_sync.h"

constexpr int CHANNELS = 64, MULTIPLIERS = TMA_QUERIES / ROWS, STAGES = 6;
constexpr int TILE = ROWS * CHANNELS;                        // elements
constexpr int TILE_BYTES = 2 * TILE, STATISTICS = 2 * ROWS;  // (logsumexp, delta) of visited queries, in floats
static_assert(TMA_BACKWARD_BYTES == (3 * MULTIPLIERS + 2 * STAGES) * TILE_BYTES + STAGES * STATISTICS * 4, "");

struct Shared {
    Barrier own_full, own_empty, full[STAGES], empty[STAGES];
};
using Place = RingPlace<STAGES>;

// In shared memory: each warpgroup's own tiles, the stages' tiles, a warpgroup's outputs on their way out, statistics.
struct Tiles {
    bf16* memory;
    DEVICE_MEMBER bf16* own_qk(int warpgroup) const { return memory + 2 * warpgroup * TILE; }
    DEVICE_MEMBER bf16* own_vdy(int warpgroup) const { return own_qk(warpgroup) + TILE; }
    DEVICE_MEMBER bf16* qk(int stage) const { return memory + (2 * MULTIPLIERS + 2 * stage) * TILE; }
    DEVICE_MEMBER bf16* vdy(int stage) const { return qk(stage) + TILE; }
    DEVICE_MEMBER bf16* outputs(int warpgroup) const { return qk(STAGES) + warpgroup * TILE; }
    DEVICE_MEMBER float* statistics(int stage) const {
        return reinterpret_cast<float*>(outputs(MULTIPLIERS)) + stage * STATISTICS;
    }
};

struct Sizes {
    int64_t B, S, H;
    DEVICE_MEMBER int visited_tiles() const { return static_cast<int>((S + ROWS - 1) / ROWS); }
};

// The first of the tiles that a block's tile visits, and the one after the last.
template <bool OWNS_KEYS>
DEVICE void visits(const Sizes& sizes, const Work& work, int& begin, int& end) {
    const int all = sizes.visited_tiles(), diagonal = work.tile * MULTIPLIERS;
    begin = OWNS_KEYS ? diagonal : 0;
    end = OWNS_KEYS || diagonal + MULTIPLIERS > all ? all : diagonal + MULTIPLIERS;
}

// Blocks that had the most work of the first kind have the least of the second.
template <bool OWNS_KEYS>
DEVICE int64_t first_index() {
    return OWNS_KEYS ? blockIdx.x : gridDim.x - 1 - blockIdx.x;
}

template <bool OWNS_KEYS>
DEVICE void load_all(const TensorMap& qkv, const TensorMap& dy, const float* delta, const float* logsumexp,
                     const Tiles& tiles, Shared& shared, Place& place, uint32_t& own_parity, const Sizes& sizes) {
    const int E = static_cast<int>(sizes.H) * CHANNELS, S = static_cast<int>(sizes.S);
    Work work;
    for (int64_t index = first_index<OWNS_KEYS>(); work_at(index, sizes.B, S, sizes.H, !OWNS_KEYS, work);
         index += gridDim.x, own_parity ^= 1) {
        const int row = work.b * S, column = work.h * CHANNELS;
        int begin, end;
        visits<OWNS_KEYS>(sizes, work, begin, end);
        shared.own_empty.wait(own_parity ^ 1);
        shared.own_full.arrive_expecting(2 * MULTIPLIERS * TILE_BYTES);
        for (int warpgroup = 0; warpgroup < MULTIPLIERS; ++warpgroup) {
            const int first = row + work.tile * TMA_QUERIES + warpgroup * ROWS;
            qkv.load(tiles.own_qk(warpgroup), shared.own_full, first, column + (OWNS_KEYS ? E : 0));
            if (OWNS_KEYS)
                qkv.load(tiles.own_vdy(warpgroup), shared.own_full, first, column + 2 * E);
            else
                dy.load(tiles.own_vdy(warpgroup), shared.own_full, first, column);
        }
        for (int tile = begin; tile < end; ++tile, place.advance()) {
            const int at = tile * ROWS, count = S - at < ROWS ? S - at : ROWS;
            Barrier& full = shared.full[place.stage];
            shared.empty[place.stage].wait(place.parity ^ 1);
            full.arrive_expecting(2 * TILE_BYTES + (OWNS_KEYS ? 2 * 4 * count : 0));
            qkv.load(tiles.qk(place.stage), full, row + at, column + (OWNS_KEYS ? 0 : E));
            if (OWNS_KEYS) {
                const int64_t query = (work.b * sizes.H + work.h) * S + at;
                dy.load(tiles.vdy(place.stage), full, row + at, column);
                copy_bytes(tiles.statistics(place.stage), logsumexp + query, 4 * count, full);
                copy_bytes(tiles.statistics(place.stage) + ROWS, delta + query, 4 * count, full);
            } else {
                qkv.load(tiles.vdy(place.stage), full, row + at, column + 2 * E);
            }
        }
    }
}

// The shares of the visited tiles in the gradients of a warpgroup's 64 rows.
template <bool OWNS_KEYS>
struct Rows {
    Mma::Operand own_qk[CHANNELS / 16], own_vdy[CHANNELS / 16];
    float dqk[CHANNELS / 2], dv[OWNS_KEYS ? CHANNELS / 2 : 1];
    float probabilities[ROWS / 2], gradients[ROWS / 2];
    uint32_t packed_probabilities[ROWS / 16][4], packed_gradients[ROWS / 16][4];
    float own_logsumexp[2], own_delta[2];  // of rows l/4 and l/4 + 8, if they are queries; logsumexp in powers of 2

    DEVICE_MEMBER void load_own(bf16* qk, bf16* vdy) {
        const int first = threadIdx.x % WARPGROUP / 32 * 16;
#pragma unroll
        for (int c = 0; c < CHANNELS / 16; ++c) {
            own_qk[c] = Mma::load(SharedTile<CHANNELS / WIDTH>{qk}, first, 16 * c);
            own_vdy[c] = Mma::load(SharedTile<CHANNELS / WIDTH>{vdy}, first, 16 * c);
        }
    }

    // Starts the product of own rows with the rows of a tile, as one batch.
    static DEVICE_MEMBER void start_product(float (&sums)[ROWS / 2], const Mma::Operand (&own)[CHANNELS / 16],
                                            const bf16* tile) {
        const uint64_t visited = descriptor(tile, 0);
        wgmma_fence();
#pragma unroll
        for (int c = 0; c < CHANNELS / 16; ++c) wgmma<0>(sums, own[c].pair, later(visited, 16 * c), c > 0);
        wgmma_commit();
    }

    // Starts adding a tile's share to dqk or dv, as one batch.
    static DEVICE_MEMBER void start_share(float (&sums)[CHANNELS / 2], const uint32_t (&factors)[ROWS / 16][4],
                                          const bf16* tile) {
        const uint64_t visited = descriptor(tile, 0);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < ROWS / 16; ++k) wgmma<1>(sums, factors[k], later(visited, 16 * k * CHANNELS));
        wgmma_commit();
    }

    // Logsumexp (0) or delta (1) of the query of sum i. statistics: of the visited queries.
    DEVICE_MEMBER float statistic(int which, int i, const float* statistics) const {
        if (!OWNS_KEYS) return which ? own_delta[i / 2 % 2] : own_logsumexp[i / 2 % 2];
        const float value = statistics[which * ROWS + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2];
        return which ? value : value * LOG2_E;
    }

    // Whether the query of sum i sees its key. on_diagonal: the visited rows are the own ones; left: visited rows below S.
    static DEVICE_MEMBER bool sees(int i, bool on_diagonal, int left) {
        const int row = sums_row() + i / 2 % 2 * 8, column = i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2;
        return (!on_diagonal || (OWNS_KEYS ? row <= column : column <= row)) && (!OWNS_KEYS || column < left);
    }

    DEVICE_MEMBER void exponentiate(const float* statistics, float power_scale) {
#pragma unroll
        for (int i = 0; i < ROWS / 2; ++i)
            probabilities[i] = quick_exp2(probabilities[i] * power_scale - statistic(0, i, statistics));
    }

    DEVICE_MEMBER void pack(uint32_t (&packed)[ROWS / 16][4], const float (&values)[ROWS / 2]) {
#pragma unroll
        for (int i = 0; i < ROWS / 2; i += 2) packed[i / 8][i / 2 % 4] = bf16_pair(values[i], values[i + 1]);
    }
};

// Whether a tile is the first that a warpgroup visits, which no tile's share waits for.
struct FirstTile {
    static constexpr bool IS_FIRST = true;
};
struct LaterTile {
    static constexpr bool IS_FIRST = false;
};

template <bool OWNS_KEYS>
DEVICE void compute(const Tiles& tiles, Shared& shared, Place& place, uint32_t own_parity, const Work& work, act* dqkv,
                    const float* delta, const float* logsumexp, const Sizes& sizes) {
    const int warpgroup = uniform(threadIdx.x / WARPGROUP), own_tile = work.tile * MULTIPLIERS + warpgroup;
    const int64_t S = sizes.S, H = sizes.H, first = int64_t{own_tile} * ROWS;
    const float scale = 1.0f / sqrtf(static_cast<float>(CHANNELS)), power_scale = scale * LOG2_E;
    const bool is_signalling = threadIdx.x % 32 == 0;
    Rows<OWNS_KEYS> rows;
#pragma unroll
    for (float& value : rows.dqk) value = 0.0f;
#pragma unroll
    for (float& value : rows.dv) value = 0.0f;
    if (!OWNS_KEYS)
        for (int h = 0; h < 2; ++h) {
            const int64_t row = first + sums_row() + 8 * h, query = (work.b * H + work.h) * S + row;
            rows.own_logsumexp[h] = row < S ? logsumexp[query] * LOG2_E : 0.0f;
            rows.own_delta[h] = row < S ? delta[query] : 0.0f;
        }
    shared.own_full.wait(own_parity);
    rows.load_own(tiles.own_qk(warpgroup), tiles.own_vdy(warpgroup));
    if (is_signalling) shared.own_empty.arrive();

    int previous = -1;  // the stage of the tile before
    auto add_previous = [&] { rows.start_share(rows.dqk, rows.packed_gradients, tiles.qk(previous)); };
    // The share in dqk is added at the next visit, not at once, because ptxas of CUDA 13.0 otherwise keeps the packed
    // gradients in the registers of the own rows.
    auto visit = [&](int tile, auto which) {
        const int stage = place.stage;
        if constexpr (!which.IS_FIRST) add_previous();
        shared.full[stage].wait(place.parity);
        rows.start_product(rows.probabilities, rows.own_qk, tiles.qk(stage));
        rows.start_product(rows.gradients, rows.own_vdy, tiles.vdy(stage));
        wgmma_wait<1>();
        wgmma_sums_ready(rows.probabilities);
        if (!which.IS_FIRST && is_signalling) shared.empty[previous].arrive();
        const float* statistics = tiles.statistics(stage);
        rows.exponentiate(statistics, power_scale);
        const int left = static_cast<int>(S - int64_t{tile} * ROWS);
        const bool on_diagonal = tile == own_tile;
        if (on_diagonal || (OWNS_KEYS && left < ROWS))
#pragma unroll
            for (int i = 0; i < ROWS / 2; ++i)
                if (!rows.sees(i, on_diagonal, left)) rows.probabilities[i] = 0.0f;
        if constexpr (OWNS_KEYS) {
            rows.pack(rows.packed_probabilities, rows.probabilities);
            rows.start_share(rows.dv, rows.packed_probabilities, tiles.vdy(stage));
        }
        wgmma_wait<OWNS_KEYS>();
        wgmma_sums_ready(rows.gradients);
#pragma unroll
        for (int i = 0; i < ROWS / 2; ++i)
            rows.gradients[i] = rows.probabilities[i] * (rows.gradients[i] - rows.statistic(1, i, statistics));
        rows.pack(rows.packed_gradients, rows.gradients);
        previous = stage;
        place.advance();
    };
    auto pass_over = [&] {
        shared.full[place.stage].wait(place.parity);
        if (is_signalling) shared.empty[place.stage].arrive();
        place.advance();
    };

    // A key is seen by queries from its own position on: warpgroup 1 passes over the first tile of queries, and
    // warpgroup 0 over the last tile of keys.
    int begin, end;
    visits<OWNS_KEYS>(sizes, work, begin, end);
    const int seen_begin = OWNS_KEYS && own_tile > begin ? begin + 1 : begin;
    const int seen_end = !OWNS_KEYS && own_tile + 1 < end ? own_tile + 1 : end;
    if (seen_begin > begin) pass_over();
    if (seen_begin < seen_end) {
        visit(seen_begin, FirstTile{});
        for (int tile = seen_begin + 1; tile < seen_end; ++tile) visit(tile, LaterTile{});
        add_previous();
        wgmma_wait<0>();
    }
    wgmma_sums_ready(rows.dqk);
    wgmma_sums_ready(rows.dv);
    if (is_signalling && previous >= 0) shared.empty[previous].arrive();
    if (seen_end < end) pass_over();
    const float scales[2] = {scale, scale}, one[2] = {1.0f, 1.0f};
    const int64_t E = H * CHANNELS;
    act* target = dqkv + work.b * S * 3 * E + work.h * CHANNELS;
    store_rows(target + (OWNS_KEYS ? E : 0), rows.dqk, scales, tiles.outputs(warpgroup), 3 * E, first, S);
    if constexpr (OWNS_KEYS) store_rows(target + 2 * E, rows.dv, one, tiles.outputs(warpgroup), 3 * E, first, S);
}

template <bool OWNS_KEYS>
DEVICE void compute_all(const Tiles& tiles, Shared& shared, Place& place, uint32_t& own_parity, act* dqkv,
                        const float* delta, const float* logsumexp, const Sizes& sizes) {
    Work work;
    for (int64_t index = first_index<OWNS_KEYS>(); work_at(index, sizes.B, sizes.S, sizes.H, !OWNS_KEYS, work);
         index += gridDim.x, own_parity ^= 1)
        compute<OWNS_KEYS>(tiles, shared, place, own_parity, work, dqkv, delta, logsumexp, sizes);
}

PERSISTENT_KERNEL(TMA_THREADS, 1)
attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv, int64_t B,
                   int64_t S, int64_t H, int64_t D, TENSOR_MAP qkv_map, TENSOR_MAP dy_map) {
    extern __shared__ __align__(1024) unsigned char tile_memory[];
    __shared__ Shared shared;
    const Tiles tiles = {reinterpret_cast<bf16*>(tile_memory)};
    const Sizes sizes = {B, S, H};
    if (threadIdx.x == 0) {
        shared.own_full.init(1);
        shared.own_empty.init(MULTIPLIERS * WARPGROUP / 32);
        for (int stage = 0; stage < STAGES; ++stage) {
            shared.full[stage].init(1);
            shared.empty[stage].init(MULTIPLIERS * WARPGROUP / 32);  // a lane of each warp, which reads statistics too
        }
        // those of rows beyond S meet probabilities of 0, so they must be finite
        for (int i = 0; i < STAGES * STATISTICS; ++i) tiles.statistics(0)[i] = 0.0f;
        fence_barrier_init();
    }
    __syncthreads();
    Place place;
    uint32_t own_parity = 0;
    if (threadIdx.x / WARPGROUP == MULTIPLIERS) {
        give_up_registers<24>();
        if (threadIdx.x % WARPGROUP == 0) {
            load_all<true>(qkv_map, dy_map, delta, logsumexp, tiles, shared, place, own_parity, sizes);
            load_all<false>(qkv_map, dy_map, delta, logsumexp, tiles, shared, place, own_parity, sizes);
        }
    } else {
        take_registers<240>();
        compute_all<true>(tiles, shared, place, own_parity, dqkv, delta, logsumexp, sizes);
        compute_all<false>(tiles, shared, place, own_parity, dqkv, delta, logsumexp, sizes);
    }
}

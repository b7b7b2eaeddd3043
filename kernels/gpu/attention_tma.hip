// attention_forward in bf16 on Hopper by wgmma and the copy engine: formula, layouts and traffic as in attention.hip.
//
// A persistent block computes tiles of TMA_QUERIES queries of one head, a warpgroup 64 of them. Another warpgroup has
// the copy engine load queries, and keys and values tile by tile, from the tile on the diagonal down to the first. While
// the tensor cores compute the scores of a tile and the share of the tile before it, a warpgroup computes softmax, and
// the other warpgroup's products fill the rest. HEAD_CHANNELS is D, 64 or 128. Rows beyond S are loaded as the rows of
// the next sequence; causality masks them.
// Grid: a block per multiprocessor. Tiles with the most keys come first within TMA_HEADS heads.
// Shah et al. 2024, "FlashAttention-3", arXiv:2407.08608.
#include "gpu/hopper/attention_work.h"
#include "gpu/hopper/tensor_map.h"
#include "gpu/hopper/wgmma.h"
#ifndef HEAD_CHANNELS
#define HEAD_CHANNELS 64
#endif

constexpr float MASKED = -1e30f;
constexpr int MULTIPLIERS = TMA_QUERIES / ROWS;
constexpr int BLOCKS = HEAD_CHANNELS / 64, QUERY_TILE = TMA_QUERIES * HEAD_CHANNELS;  // blocks of 64 channels; elements
constexpr int KEY_TILE = TMA_KEYS * HEAD_CHANNELS, KEY_BLOCK = TMA_KEYS * 64;
constexpr int STAGES = TMA_KEY_VALUE_BYTES / (4 * KEY_TILE);
static_assert(TMA_QUERIES == TMA_KEYS, "a tile has one key-value tile on the diagonal");

struct Shared {
    Barrier queries_full, queries_empty;
    Barrier keys_full[STAGES], keys_empty[STAGES];
    Barrier values_full[STAGES], values_empty[STAGES];
};
using Place = RingPlace<STAGES>;

// In shared memory: queries, stages of keys, stages of values, and a warpgroup's outputs on their way out.
struct Tiles {
    bf16* memory;
    DEVICE_MEMBER bf16* queries() const { return memory; }
    DEVICE_MEMBER bf16* keys(int stage) const { return memory + QUERY_TILE + stage * KEY_TILE; }
    DEVICE_MEMBER bf16* values(int stage) const { return keys(STAGES + stage); }
    DEVICE_MEMBER bf16* outputs(int warpgroup) const { return keys(2 * STAGES) + warpgroup * ROWS * HEAD_CHANNELS; }
};

// A head's rows from `row` on, HEAD_CHANNELS columns from `column` on.
DEVICE void load_rows(const TensorMap& qkv, bf16* tile, Barrier& full, int row, int column) {
    full.arrive_expecting(TMA_KEYS * HEAD_CHANNELS * 2);
    for (int block = 0; block < BLOCKS; ++block) qkv.load(tile + block * KEY_BLOCK, full, row, column + block * 64);
}

DEVICE void load_all(const TensorMap& qkv, const Tiles& tiles, Shared& shared, int64_t B, int64_t S, int64_t H) {
    const int E = static_cast<int>(H) * HEAD_CHANNELS;
    Place place;
    uint32_t queries_parity = 0;
    Work work;
    for (int64_t index = blockIdx.x; work_at(index, B, S, H, true, work); index += gridDim.x, queries_parity ^= 1) {
        const int first = work.b * static_cast<int>(S), column = work.h * HEAD_CHANNELS;
        shared.queries_empty.wait(queries_parity ^ 1);
        load_rows(qkv, tiles.queries(), shared.queries_full, first + work.tile * TMA_QUERIES, column);
        for (int tile = work.tile; tile >= 0; --tile, place.advance()) {
            shared.keys_empty[place.stage].wait(place.parity ^ 1);
            load_rows(qkv, tiles.keys(place.stage), shared.keys_full[place.stage], first + tile * TMA_KEYS, column + E);
            shared.values_empty[place.stage].wait(place.parity ^ 1);
            load_rows(qkv, tiles.values(place.stage), shared.values_full[place.stage], first + tile * TMA_KEYS,
                      column + 2 * E);
        }
    }
}

// One warpgroup's 64 rows.
struct Rows {
    float out[HEAD_CHANNELS / 2], scores[TMA_KEYS / 2];
    uint32_t probabilities[TMA_KEYS / 16][4];  // packed
    float maximum[2], sum[2];                  // of rows l/4 and l/4 + 8; sum: of this lane's columns

    DEVICE_MEMBER void start_scores(const bf16* queries, const bf16* keys) {
        wgmma_fence();
#pragma unroll
        for (int c = 0; c < HEAD_CHANNELS; c += 16) {
            const int block = c / 64 * KEY_BLOCK, along = c % 64;
            wgmma<0, 0>(scores, descriptor(queries + block + along, 0), descriptor(keys + block + along, 0), c > 0);
        }
        wgmma_commit();
    }

    DEVICE_MEMBER void start_outputs(const bf16* values) {
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < TMA_KEYS; k += 16)
            wgmma<1>(out, probabilities[k / 16], descriptor(values + k * 64, KEY_BLOCK * 2));
        wgmma_commit();
    }

    // Turns scores into probabilities; returns in `shrink` what sums so far are to be multiplied by.
    DEVICE_MEMBER void softmax(float scale, float (&shrink)[2]) {
        float raised[2] = {MASKED, MASKED};
#pragma unroll
        for (int i = 0; i < TMA_KEYS / 2; ++i) raised[i / 2 % 2] = fmaxf(raised[i / 2 % 2], scores[i]);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            raised[h] = fmaxf(raised[h], wave_exchange(raised[h], 1));
            raised[h] = fmaxf(raised[h], wave_exchange(raised[h], 2));
            raised[h] = fmaxf(maximum[h], raised[h] * scale);
            shrink[h] = quick_exp2(maximum[h] - raised[h]);
            maximum[h] = raised[h];
            sum[h] *= shrink[h];
        }
#pragma unroll
        for (int i = 0; i < TMA_KEYS / 2; ++i) {
            scores[i] = quick_exp2(scores[i] * scale - raised[i / 2 % 2]);
            sum[i / 2 % 2] += scores[i];
        }
    }

    DEVICE_MEMBER void pack() {
#pragma unroll
        for (int i = 0; i < TMA_KEYS / 2; i += 2) probabilities[i / 8][i / 2 % 4] = bf16_pair(scores[i], scores[i + 1]);
    }
};

DEVICE void compute(const Tiles& tiles, Shared& shared, Place& place, uint32_t queries_parity, const Work& work, act* y,
                    float* logsumexp, int64_t S, int64_t H) {
    const int warpgroup = threadIdx.x / WARPGROUP, lane = threadIdx.x % 32;
    const int own_row = threadIdx.x % WARPGROUP / 32 * 16 + lane / 4;  // of the warpgroup's rows, and the one 8 below
    const float scale = LOG2_E / sqrtf(static_cast<float>(HEAD_CHANNELS));  // scores become powers of 2
    const bf16* queries = tiles.queries() + warpgroup * ROWS * 64;
    const bool is_signalling = threadIdx.x % WARPGROUP == 0;
    Rows rows;
    rows.maximum[0] = rows.maximum[1] = MASKED;
    rows.sum[0] = rows.sum[1] = 0.0f;
#pragma unroll
    for (float& value : rows.out) value = 0.0f;
    float shrink[2];

    shared.queries_full.wait(queries_parity);
    shared.keys_full[place.stage].wait(place.parity);
    rows.start_scores(queries, tiles.keys(place.stage));
    wgmma_wait<0>();
    wgmma_sums_ready(rows.scores);
    if (is_signalling) shared.keys_empty[place.stage].arrive();
#pragma unroll
    for (int i = 0; i < TMA_KEYS / 2; ++i)
        if (i / 4 * 8 + lane % 4 * 2 + i % 2 > warpgroup * ROWS + own_row + i / 2 % 2 * 8) rows.scores[i] = MASKED;
    rows.softmax(scale, shrink);
    rows.pack();
    for (int tile = work.tile; tile > 0; --tile) {
        const Place earlier = place;
        place.advance();
        shared.keys_full[place.stage].wait(place.parity);
        rows.start_scores(queries, tiles.keys(place.stage));
        shared.values_full[earlier.stage].wait(earlier.parity);
        rows.start_outputs(tiles.values(earlier.stage));
        wgmma_wait<1>();
        wgmma_sums_ready(rows.scores);
        if (is_signalling) shared.keys_empty[place.stage].arrive();
        rows.softmax(scale, shrink);
        wgmma_wait<0>();
        wgmma_sums_ready(rows.out);
        if (is_signalling) shared.values_empty[earlier.stage].arrive();
#pragma unroll
        for (int i = 0; i < HEAD_CHANNELS / 2; ++i) rows.out[i] *= shrink[i / 2 % 2];
        rows.pack();
    }
    if (is_signalling) shared.queries_empty.arrive();
    shared.values_full[place.stage].wait(place.parity);
    rows.start_outputs(tiles.values(place.stage));
    wgmma_wait<0>();
    wgmma_sums_ready(rows.out);
    if (is_signalling) shared.values_empty[place.stage].arrive();
    place.advance();

    const int64_t first = int64_t{work.tile} * TMA_QUERIES + warpgroup * ROWS;
    float factor[2];
    for (int h = 0; h < 2; ++h) {
        rows.sum[h] += wave_exchange(rows.sum[h], 1);
        rows.sum[h] += wave_exchange(rows.sum[h], 2);
        factor[h] = 1.0f / rows.sum[h];
        const int64_t row = first + own_row + 8 * h;
        if (lane % 4 == 0 && row < S)
            logsumexp[(work.b * H + work.h) * S + row] = rows.maximum[h] / LOG2_E + logf(rows.sum[h]);
    }
    store_rows(y + (work.b * S * H + work.h) * HEAD_CHANNELS, rows.out, factor, tiles.outputs(warpgroup),
               H * HEAD_CHANNELS, first, S);
}

PERSISTENT_KERNEL(TMA_THREADS, 1)
attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D,
                  TENSOR_MAP qkv_map) {
    extern __shared__ __align__(1024) unsigned char tile_memory[];
    __shared__ Shared shared;
    const Tiles tiles = {reinterpret_cast<bf16*>(tile_memory)};
    if (threadIdx.x == 0) {
        shared.queries_full.init(1);
        shared.queries_empty.init(MULTIPLIERS);
        for (int stage = 0; stage < STAGES; ++stage) {
            shared.keys_full[stage].init(1);
            shared.keys_empty[stage].init(MULTIPLIERS);
            shared.values_full[stage].init(1);
            shared.values_empty[stage].init(MULTIPLIERS);
        }
        fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x / WARPGROUP == MULTIPLIERS) {
        give_up_registers<24>();
        if (threadIdx.x % WARPGROUP == 0) load_all(qkv_map, tiles, shared, B, S, H);
    } else {
        take_registers<240>();
        Place place;
        uint32_t queries_parity = 0;
        Work work;
        for (int64_t index = blockIdx.x; work_at(index, B, S, H, true, work); index += gridDim.x, queries_parity ^= 1)
            compute(tiles, shared, place, queries_parity, work, y, logsumexp, S, H);
    }
}

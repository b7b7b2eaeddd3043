// attention_forward and attention_backward in bf16 by NVIDIA's matrix instructions: formulas, layouts and traffic as in
// attention.hip; sums in f32.
//
// A block owns a resident tile of RESIDENT_ROWS rows of one head, MMA_TILE per wave, in registers, and visits
// the streamed tiles that causality lets it see: mma/head_tiles.h. HEAD_CHANNELS is D rounded up to
// 32, 64 or 128.
// Forward, the softmax is online (Milakov & Gimelshein 2018, arXiv:1805.02867; tiles as in Dao et al. 2022,
// arXiv:2205.14135). Backward, the first half of the blocks owns key-value tiles and computes dk and dv, the second
// half owns query tiles and computes dq. So no two blocks add to the same number, and the scores are computed twice.
// Grid B*H*ceil(S / RESIDENT_ROWS), twice that backward. Blocks with the most tiles to visit come first.
#include "gpu/mma/online_softmax.h"

DEVICE void forward(bf16* memory, act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H,
                    int64_t D) {
    const int64_t heads = B * H, tiles = (S + RESIDENT_ROWS - 1) / RESIDENT_ROWS, head = blockIdx.x % heads,
                  b = head / H, h = head % H;
    const int64_t first = (tiles - 1 - blockIdx.x / heads) * RESIDENT_ROWS, stride = 3 * H * D;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D;
    const float scale =
        LOG2_E / sqrtf(static_cast<float>(D));  // scores become powers of 2, because exp2 is one instruction
    const int64_t wave_row = first + threadIdx.x / WAVE * MMA_TILE,
                  wave_end = wave_row + MMA_TILE < S ? wave_row + MMA_TILE : S;
    bf16 *keys = memory, *values = keys + Head::STREAMED_TILE;
    Head::TileLoader<RESIDENT_ROWS>(q, stride, first, S, D).load(memory);
    copies_commit();
    copies_wait<0>();
    __syncthreads();
    const Head::Resident queries(memory);
    __syncthreads();
    Head::TileLoader<Head::STREAMED_ROWS> key_loader(k, stride, 0, S, D), value_loader(v, stride, 0, S, D);
    key_loader.load(keys);
    copies_commit();

    Sum scores[Head::DOWN];
    OnlineSoftmax softmax;
    const int64_t end = first + RESIDENT_ROWS < S ? first + RESIDENT_ROWS : S;
    for (int64_t at = 0; at < end; at += Head::STREAMED_ROWS) {
        copies_wait<0>();
        __syncthreads();
        value_loader.load(values);
        copies_commit();
        const bool sees_all = at + Head::STREAMED_ROWS <= wave_row;
        const SomeMmaTiles seen = {
            0, mma_tiles_below(wave_row < S ? wave_end : 0, at)};  // none for a wave beyond the sequence
        if (sees_all)
            Head::multiply_ABt(scores, queries, keys, AllMmaTiles{});
        else
            Head::multiply_ABt(scores, queries, keys, seen);
        if (!sees_all) {
            const int diagonal = static_cast<int>(wave_row - at);
#pragma unroll
            for (int j = 0; j < Head::DOWN; ++j)
#pragma unroll
                for (int e = 0; e < Mma::SIZE; ++e)
                    if (j * MMA_TILE + Mma::column(e) > diagonal + Mma::row(Mma::slot(e))) scores[j].value[e] = MASKED;
        }
        if (sees_all)
            softmax.weigh(scores, AllMmaTiles{}, scale);
        else
            softmax.weigh(scores, seen, scale);
        copies_wait<0>();
        __syncthreads();
        if (at + Head::STREAMED_ROWS < end) key_loader.load(keys);
        copies_commit();
        if (sees_all)
            Head::accumulate_AB(softmax.out, scores, values, AllMmaTiles{});
        else
            Head::accumulate_AB(softmax.out, scores, values, seen);
    }
    float factor[Mma::SLOTS];
    for (int slot = 0; slot < Mma::SLOTS; ++slot) {
        const int64_t row = wave_row + Mma::row(slot);
        float of_row;
        factor[slot] = softmax.finish(slot, of_row);
        if (Mma::column(0) == 0 && row < S) logsumexp[head * S + row] = of_row;
    }
    __syncthreads();
    Head::store(y + b * S * H * D + h * D, softmax.out, factor, memory, H * D, first, S, D);
}

enum { DELTA, LOGSUMEXP };

// By turn, the (delta, logsumexp) pairs of a streamed query tile, logsumexp in powers of 2.
typedef float StreamedQueries[2][2][RESIDENT_ROWS];

// dk and dv of a resident key-value tile, or dq of a resident query tile. In names, qk is keys or queries and vdy is
// values or dy, whichever of the two the block owns (resident) or visits (streamed).
template <bool OWNS_KEYS>
DEVICE void backward(bf16* memory, StreamedQueries& streamed_queries, act* dqkv, const act* dy, const float* delta,
                     const float* logsumexp, const act* qkv, int64_t block, int64_t B, int64_t S, int64_t H,
                     int64_t D) {
    const int64_t heads = B * H, tiles = (S + RESIDENT_ROWS - 1) / RESIDENT_ROWS, head = block % heads, b = head / H,
                  h = head % H;
    const int64_t first = (OWNS_KEYS ? block / heads : tiles - 1 - block / heads) * RESIDENT_ROWS, stride = 3 * H * D;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D, *dout = dy + b * S * H * D + h * D;
    const int64_t vdy_stride = OWNS_KEYS ? stride : H * D, streamed_vdy_stride = OWNS_KEYS ? H * D : stride;
    const int64_t wave_row = first + threadIdx.x / WAVE * MMA_TILE, begin = OWNS_KEYS ? first : 0;
    const int64_t end = OWNS_KEYS || first + RESIDENT_ROWS > S ? S : first + RESIDENT_ROWS;
    const float scale = 1.0f / sqrtf(static_cast<float>(D)), power_scale = scale * LOG2_E;

    Head::TileLoader<RESIDENT_ROWS>(OWNS_KEYS ? k : q, stride, first, S, D).load(memory);
    Head::TileLoader<RESIDENT_ROWS>(OWNS_KEYS ? v : dout, vdy_stride, first, S, D)
        .load(memory + RESIDENT_ROWS * HEAD_CHANNELS);
    copies_commit();
    copies_wait<0>();
    __syncthreads();
    const Head::Resident resident_qk(memory), resident_vdy(memory + RESIDENT_ROWS * HEAD_CHANNELS);
    __syncthreads();

    Head::TileLoader<Head::STREAMED_ROWS> qk_loader(OWNS_KEYS ? q : k, stride, begin, S, D);
    Head::TileLoader<Head::STREAMED_ROWS> vdy_loader(OWNS_KEYS ? dout : v, streamed_vdy_stride, begin, S, D);
    auto load_tiles = [&](int turn) {
        bf16* tile = memory + turn * 2 * Head::STREAMED_TILE;
        qk_loader.load(tile);
        vdy_loader.load(tile + Head::STREAMED_TILE);
    };
    // If queries are streamed, a thread prefetches delta and logsumexp of one query of the next tile, for all threads.
    float next_query[2];
    auto prefetch_queries = [&](int64_t at) {
        const int64_t query = at + threadIdx.x;
        const bool has_one = OWNS_KEYS && threadIdx.x < Head::STREAMED_ROWS && query < S;
        next_query[DELTA] = has_one ? delta[head * S + query] : 0.0f;
        next_query[LOGSUMEXP] = has_one ? logsumexp[head * S + query] : 0.0f;
    };
    auto store_queries = [&](int turn) {
        if (!OWNS_KEYS || threadIdx.x >= Head::STREAMED_ROWS) return;
        streamed_queries[turn][DELTA][threadIdx.x] = next_query[DELTA];
        streamed_queries[turn][LOGSUMEXP][threadIdx.x] = next_query[LOGSUMEXP] * LOG2_E;
    };
    float wave_delta[Mma::SLOTS], wave_logsumexp[Mma::SLOTS];
    for (int slot = 0; slot < Mma::SLOTS; ++slot) {
        const int64_t query = wave_row + Mma::row(slot);
        wave_delta[slot] = !OWNS_KEYS && query < S ? delta[head * S + query] : 0.0f;
        wave_logsumexp[slot] = !OWNS_KEYS && query < S ? logsumexp[head * S + query] * LOG2_E : 0.0f;
    }
    Sum dqk[Head::ALONG] = {}, dv[OWNS_KEYS ? Head::ALONG : 1] = {};

    // Adds the share of the streamed tile that starts at row `at`.
    auto visit = [&](int64_t at, int turn, const auto& mma_tiles) {
        const int diagonal = static_cast<int>(wave_row - at);
        bf16 *streamed_qk = memory + turn * 2 * Head::STREAMED_TILE, *streamed_vdy = streamed_qk + Head::STREAMED_TILE;
        Sum probabilities[Head::DOWN], gradients[Head::DOWN];
        Head::multiply_ABt(probabilities, resident_qk, streamed_qk, mma_tiles);
        Head::multiply_ABt(gradients, resident_vdy, streamed_vdy, mma_tiles);
#pragma unroll
        for (int j = 0; j < Head::DOWN; ++j) {
            // only the mma tile on the diagonal and the last one of the sequence have elements to leave out
            const bool ragged = mma_tiles.RAGGED &&
                                (j * MMA_TILE == diagonal || at + (j + 1) * MMA_TILE > S || wave_row + MMA_TILE > S);
#pragma unroll
            for (int e = 0; e < Mma::SIZE; ++e) {
                const int slot = Mma::slot(e), row = Mma::row(slot), column = j * MMA_TILE + Mma::column(e);
                const float query_delta = OWNS_KEYS ? streamed_queries[turn][DELTA][column] : wave_delta[slot];
                const float query_logsumexp =
                    OWNS_KEYS ? streamed_queries[turn][LOGSUMEXP][column] : wave_logsumexp[slot];
                probabilities[j].value[e] = quick_exp2(probabilities[j].value[e] * power_scale - query_logsumexp);
                if (ragged) {
                    const bool is_seen = OWNS_KEYS ? diagonal + row <= column && at + column < S
                                                   : column <= diagonal + row && wave_row + row < S;
                    if (!is_seen) probabilities[j].value[e] = 0.0f;
                }
                gradients[j].value[e] = probabilities[j].value[e] * (gradients[j].value[e] - query_delta);
            }
        }
        Head::accumulate_AB(dqk, gradients, streamed_qk, mma_tiles);
        if constexpr (OWNS_KEYS) Head::accumulate_AB(dv, probabilities, streamed_vdy, mma_tiles);
    };

    load_tiles(0);
    copies_commit();
    prefetch_queries(begin);
    store_queries(0);
    int turn = 0;
    for (int64_t at = begin; at < end; at += Head::STREAMED_ROWS, turn ^= 1) {
        copies_wait<0>();
        __syncthreads();
        if (at + Head::STREAMED_ROWS < end) load_tiles(turn ^ 1);
        copies_commit();
        prefetch_queries(at + Head::STREAMED_ROWS);
        // a key is seen by queries from its own position on, a query sees keys up to its own
        const int diagonal = static_cast<int>(wave_row - at);
        const int first_mma_tile = OWNS_KEYS && diagonal > 0 ? diagonal / MMA_TILE : 0;
        const int last_mma_tile = mma_tiles_below(OWNS_KEYS || wave_row + MMA_TILE > S ? S : wave_row + MMA_TILE, at);
        if (wave_row < S) {
            if (OWNS_KEYS ? diagonal <= -MMA_TILE && at + Head::STREAMED_ROWS <= S : diagonal >= Head::STREAMED_ROWS)
                visit(at, turn, AllMmaTiles{});
            else
                visit(at, turn, SomeMmaTiles{first_mma_tile, last_mma_tile});
        }
        store_queries(turn ^ 1);
    }
    __syncthreads();
    float one[Mma::SLOTS], scales[Mma::SLOTS];
    for (int slot = 0; slot < Mma::SLOTS; ++slot) {
        one[slot] = 1.0f;
        scales[slot] = scale;
    }
    act* target = dqkv + b * S * stride + h * D;
    Head::store(target + (OWNS_KEYS ? H * D : 0), dqk, scales, memory, stride, first, S, D);
    if constexpr (OWNS_KEYS) Head::store(target + 2 * H * D, dv, one, memory, stride, first, S, D);
}

KERNEL(MMA_THREADS)
attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ Vector memory[MEMORY_BYTES / 16];
    bf16* tiles = reinterpret_cast<bf16*>(memory);
    forward(tiles, y, logsumexp, qkv, B, S, H, D);
}

KERNEL(MMA_THREADS)
attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv, int64_t B,
                   int64_t S, int64_t H, int64_t D) {
    __shared__ Vector memory[MEMORY_BYTES / 16];
    __shared__ StreamedQueries streamed_queries;
    bf16* tiles = reinterpret_cast<bf16*>(memory);
    const int64_t half = gridDim.x / 2;
    if (blockIdx.x < half)
        backward<true>(tiles, streamed_queries, dqkv, dy, delta, logsumexp, qkv, blockIdx.x, B, S, H, D);
    else
        backward<false>(tiles, streamed_queries, dqkv, dy, delta, logsumexp, qkv, blockIdx.x - half, B, S, H, D);
}

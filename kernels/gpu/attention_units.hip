// attention_forward, attention_backward in bf16 by matrix units: formulas in kernels/cpu/attention.cpp, sums in f32.
//
// A block owns OWN rows of one head, a wave SQUARE of them, which it keeps in registers, and passes over the others' tiles of
// Head::OTHERS rows that causality leaves it. Forward, the softmax is online (Milakov & Gimelshein 2018, arXiv:1805.02867; tiles
// as in Dao et al. 2022, arXiv:2205.14135). Backward, the first half of the blocks owns keys and makes dk and dv, the second
// owns queries and makes dq: nothing is added by two blocks, for which the scores are made twice.
// Grid: ceil(S / OWN) * B*H, twice that backward; the longest passes start first.
#include "platform.h"
#include "values.h"
#include "formulas.h"
#include "head.h"

constexpr float MASKED = -1e30f, LOG2_E = 1.44269504f;

DEVICE float maximum_across(float value) {
    return Fragment::across_row(value, [](float a, float b) { return fmaxf(a, b); });
}

DEVICE float sum_across(float value) {
    return Fragment::across_row(value, [](float a, float b) { return a + b; });
}

DEVICE void forward(bf16* memory, bf16* scratch, act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H,
                    int64_t D) {
    const int64_t heads = B * H, tiles = (S + OWN - 1) / OWN, head = blockIdx.x % heads, b = head / H, h = head % H;
    const int64_t first = (tiles - 1 - blockIdx.x / heads) * OWN, stride = 3 * H * D;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D;
    const float scale = LOG2_E / sqrtf(static_cast<float>(D));  // of scores as powers of 2
    const int64_t own_row = first + threadIdx.x / WAVE * SQUARE, own_end = own_row + SQUARE < S ? own_row + SQUARE : S;
    bf16 *keys = memory + OWN_TILE, *values = keys + Head::TILE;
    Head::Rows<OWN>(q, stride, first, S, D).copy(memory);
    copies_commit();
    copies_wait<0>();
    __syncthreads();
    const Head::Own queries(memory);
    __syncthreads();
    Head::Rows<Head::OTHERS> key_rows(k, stride, 0, S, D), value_rows(v, stride, 0, S, D);
    key_rows.copy(keys);
    copies_commit();

    Sum mixed[Head::SQUARES] = {}, scores[Head::OTHERS / SQUARE];
    float maximum[Fragment::SLOTS], sum[Fragment::SLOTS];
    for (int slot = 0; slot < Fragment::SLOTS; ++slot) {
        maximum[slot] = MASKED;
        sum[slot] = 0.0f;
    }
    const int64_t end = first + OWN < S ? first + OWN : S;
    for (int64_t at = 0; at < end; at += Head::OTHERS) {
        copies_wait<0>();
        __syncthreads();
        value_rows.copy(values);
        copies_commit();
        const bool sees_all = at + Head::OTHERS <= own_row;
        const SomeSquares seen = {0, squares_before(own_row < S ? own_end : 0, at)};  // none in a wave beyond the sequence
        if (sees_all)
            Head::multiply(scores, queries, keys, AllSquares{});
        else
            Head::multiply(scores, queries, keys, seen);
        float raised[Fragment::SLOTS], added[Fragment::SLOTS] = {}, shrink[Fragment::SLOTS];
        for (int slot = 0; slot < Fragment::SLOTS; ++slot) raised[slot] = MASKED;
        if (!sees_all) {
            const int own = static_cast<int>(own_row - at);
#pragma unroll
            for (int j = 0; j < Head::OTHERS / SQUARE; ++j)
#pragma unroll
                for (int e = 0; e < Fragment::SIZE; ++e)
                    if (j * SQUARE + Fragment::column(e) > own + Fragment::row(Fragment::slot(e))) scores[j].value[e] = MASKED;
        }
#pragma unroll
        for (int j = 0; j < Head::OTHERS / SQUARE; ++j)
#pragma unroll
            for (int e = 0; e < Fragment::SIZE; ++e)
                raised[Fragment::slot(e)] = fmaxf(raised[Fragment::slot(e)], scores[j].value[e]);
#pragma unroll
        for (int slot = 0; slot < Fragment::SLOTS; ++slot) {
            raised[slot] = fmaxf(maximum[slot], maximum_across(raised[slot]) * scale);
            shrink[slot] = quick_exp2(maximum[slot] - raised[slot]);
            maximum[slot] = raised[slot];
        }
#pragma unroll
        for (int j = 0; j < Head::OTHERS / SQUARE; ++j)
#pragma unroll
            for (int e = 0; e < Fragment::SIZE; ++e) {
                const float weight = quick_exp2(scores[j].value[e] * scale - raised[Fragment::slot(e)]);
                scores[j].value[e] = weight;
                added[Fragment::slot(e)] += weight;
            }
#pragma unroll
        for (int slot = 0; slot < Fragment::SLOTS; ++slot) sum[slot] = sum[slot] * shrink[slot] + sum_across(added[slot]);
#pragma unroll
        for (int c = 0; c < Head::SQUARES; ++c)
#pragma unroll
            for (int e = 0; e < Fragment::SIZE; ++e) mixed[c].value[e] *= shrink[Fragment::slot(e)];
        copies_wait<0>();
        __syncthreads();
        if (at + Head::OTHERS < end) key_rows.copy(keys);
        copies_commit();
        if (sees_all)
            Head::mix(mixed, scores, values, scratch, AllSquares{});
        else
            Head::mix(mixed, scores, values, scratch, seen);
    }
    float factor[Fragment::SLOTS];
    for (int slot = 0; slot < Fragment::SLOTS; ++slot) {
        const int64_t row = own_row + Fragment::row(slot);
        factor[slot] = 1.0f / sum[slot];
        if (Fragment::column(0) == 0 && row < S) logsumexp[head * S + row] = maximum[slot] / LOG2_E + logf(sum[slot]);
    }
    __syncthreads();
    Head::write(y + b * S * H * D + h * D, mixed, factor, memory, H * D, first, S, D);
}

template <bool OWNS_KEYS>
DEVICE void backward(bf16* memory, bf16* scratch, float (&figures)[2][2][OWN], act* dqkv, const act* dy, const float* delta,
                     const float* logsumexp, const act* qkv, int64_t block, int64_t B, int64_t S, int64_t H, int64_t D) {
    const int64_t heads = B * H, tiles = (S + OWN - 1) / OWN, head = block % heads, b = head / H, h = head % H;
    const int64_t first = (OWNS_KEYS ? block / heads : tiles - 1 - block / heads) * OWN, stride = 3 * H * D;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D, *dout = dy + b * S * H * D + h * D;
    const int64_t own_stride = OWNS_KEYS ? stride : H * D, other_stride = OWNS_KEYS ? H * D : stride;
    const int64_t own_row = first + threadIdx.x / WAVE * SQUARE, begin = OWNS_KEYS ? first : 0;
    const int64_t end = OWNS_KEYS || first + OWN > S ? S : first + OWN;
    const float scale = 1.0f / sqrtf(static_cast<float>(D)), power_scale = scale * LOG2_E;

    Head::Rows<OWN>(OWNS_KEYS ? k : q, stride, first, S, D).copy(memory);
    Head::Rows<OWN>(OWNS_KEYS ? v : dout, own_stride, first, S, D).copy(memory + OWN * CHANNELS);
    copies_commit();
    copies_wait<0>();
    __syncthreads();
    const Head::Own own_first(memory), own_second(memory + OWN * CHANNELS);
    bf16* tiles_of_others = memory + 2 * OWN_TILE;
    __syncthreads();

    Head::Rows<Head::OTHERS> first_rows(OWNS_KEYS ? q : k, stride, begin, S, D);
    Head::Rows<Head::OTHERS> second_rows(OWNS_KEYS ? dout : v, other_stride, begin, S, D);
    auto copy_tiles = [&](int turn) {
        bf16* tile = tiles_of_others + turn * 2 * Head::TILE;
        first_rows.copy(tile);
        second_rows.copy(tile + Head::TILE);
    };
    // If others are the queries: delta and logsumexp of the one that this thread reads for all, while these are at work.
    float coming[2];
    auto read_figures = [&](int64_t at) {
        const int64_t query = at + threadIdx.x;
        const bool has_one = OWNS_KEYS && threadIdx.x < Head::OTHERS && query < S;
        coming[0] = has_one ? delta[head * S + query] : 0.0f;
        coming[1] = has_one ? logsumexp[head * S + query] : 0.0f;
    };
    auto keep_figures = [&](int turn) {
        if (!OWNS_KEYS || threadIdx.x >= Head::OTHERS) return;
        figures[turn][0][threadIdx.x] = coming[0];
        figures[turn][1][threadIdx.x] = coming[1] * LOG2_E;
    };
    float own_delta[Fragment::SLOTS], own_logsumexp[Fragment::SLOTS];
    for (int slot = 0; slot < Fragment::SLOTS; ++slot) {
        const int64_t query = own_row + Fragment::row(slot);
        own_delta[slot] = !OWNS_KEYS && query < S ? delta[head * S + query] : 0.0f;
        own_logsumexp[slot] = !OWNS_KEYS && query < S ? logsumexp[head * S + query] * LOG2_E : 0.0f;
    }
    Sum first_sums[Head::SQUARES] = {}, second_sums[OWNS_KEYS ? Head::SQUARES : 1] = {};

    // One tile of others, from row `at` on.
    auto pass = [&](int64_t at, int turn, const auto& squares) {
        const int own = static_cast<int>(own_row - at);
        bf16 *other_first = tiles_of_others + turn * 2 * Head::TILE, *other_second = other_first + Head::TILE;
        Sum weights[Head::OTHERS / SQUARE], gradients[Head::OTHERS / SQUARE];
        Head::multiply(weights, own_first, other_first, squares);
        Head::multiply(gradients, own_second, other_second, squares);
#pragma unroll
        for (int j = 0; j < Head::OTHERS / SQUARE; ++j) {
            // only the square on the diagonal and the last one of the sequence have elements that are not to count
            const bool ragged = squares.RAGGED && (j * SQUARE == own || at + (j + 1) * SQUARE > S || own_row + SQUARE > S);
#pragma unroll
            for (int e = 0; e < Fragment::SIZE; ++e) {
                const int slot = Fragment::slot(e), row = Fragment::row(slot), column = j * SQUARE + Fragment::column(e);
                const float product = OWNS_KEYS ? figures[turn][0][column] : own_delta[slot];
                const float normalizer = OWNS_KEYS ? figures[turn][1][column] : own_logsumexp[slot];
                weights[j].value[e] = quick_exp2(weights[j].value[e] * power_scale - normalizer);
                if (ragged) {
                    const bool is_seen = OWNS_KEYS ? own + row <= column && at + column < S
                                                   : column <= own + row && own_row + row < S;
                    if (!is_seen) weights[j].value[e] = 0.0f;
                }
                gradients[j].value[e] = weights[j].value[e] * (gradients[j].value[e] - product);
            }
        }
        Head::mix(first_sums, gradients, other_first, scratch, squares);
        if constexpr (OWNS_KEYS) Head::mix(second_sums, weights, other_second, scratch, squares);
    };

    copy_tiles(0);
    copies_commit();
    read_figures(begin);
    keep_figures(0);
    int turn = 0;
    for (int64_t at = begin; at < end; at += Head::OTHERS, turn ^= 1) {
        copies_wait<0>();
        __syncthreads();
        if (at + Head::OTHERS < end) copy_tiles(turn ^ 1);
        copies_commit();
        read_figures(at + Head::OTHERS);
        // keys see queries from theirs on, queries see keys up to theirs
        const int own = static_cast<int>(own_row - at), first_square = OWNS_KEYS && own > 0 ? own / SQUARE : 0;
        const int last_square = squares_before(OWNS_KEYS || own_row + SQUARE > S ? S : own_row + SQUARE, at);
        if (own_row < S) {
            if (OWNS_KEYS ? own <= -SQUARE && at + Head::OTHERS <= S : own >= Head::OTHERS)
                pass(at, turn, AllSquares{});
            else
                pass(at, turn, SomeSquares{first_square, last_square});
        }
        keep_figures(turn ^ 1);
    }
    __syncthreads();
    float one[Fragment::SLOTS], scales[Fragment::SLOTS];
    for (int slot = 0; slot < Fragment::SLOTS; ++slot) {
        one[slot] = 1.0f;
        scales[slot] = scale;
    }
    act* target = dqkv + b * S * stride + h * D;
    Head::write(target + (OWNS_KEYS ? H * D : 0), first_sums, scales, memory, stride, first, S, D);
    if constexpr (OWNS_KEYS) Head::write(target + 2 * H * D, second_sums, one, memory, stride, first, S, D);
}

constexpr int SCRATCH = SQUARE * SQUARE;  // elements, a wave

KERNEL(THREADS) attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ Words memory[MEMORY_BYTES / 16], scratches[WAVES * SCRATCH / WIDTH];
    bf16 *tiles = reinterpret_cast<bf16*>(memory), *scratch = reinterpret_cast<bf16*>(scratches) + threadIdx.x / WAVE * SCRATCH;
    forward(tiles, scratch, y, logsumexp, qkv, B, S, H, D);
}

KERNEL(THREADS) attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv,
                                   int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ Words memory[MEMORY_BYTES / 16], scratches[WAVES * SCRATCH / WIDTH];
    __shared__ float figures[2][2][OWN];
    bf16 *tiles = reinterpret_cast<bf16*>(memory), *scratch = reinterpret_cast<bf16*>(scratches) + threadIdx.x / WAVE * SCRATCH;
    const int64_t half = gridDim.x / 2;
    if (blockIdx.x < half)
        backward<true>(tiles, scratch, figures, dqkv, dy, delta, logsumexp, qkv, blockIdx.x, B, S, H, D);
    else
        backward<false>(tiles, scratch, figures, dqkv, dy, delta, logsumexp, qkv, blockIdx.x - half, B, S, H, D);
}

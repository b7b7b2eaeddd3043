// attention_forward, attention_backward in bf16 by matrix units: formulas in kernels/cpu/attention.cpp, sums in f32.
//
// A block owns OWN rows of one head, a wave SQUARE of them, which it keeps in registers, and passes over the others' tiles of
// Head::OTHERS rows that causality leaves it. Forward, the softmax is online (Milakov & Gimelshein 2018, arXiv:1805.02867; tiles
// as in Dao et al. 2022, arXiv:2205.14135). Backward, the first half of the blocks owns keys and makes dk and dv, the second
// owns queries and makes dq: nothing is added by two blocks, for which the scores are made twice.
// Grid: ceil(S / OWN) * B*H, twice that backward; the longest passes start first.
#include "platform.h"
#include "values.h"
#include "scalar.h"
#include "fragment.h"
#include "side.h"

constexpr int WAVES = 4, THREADS = WAVES * WAVE, SQUARE = 16, OWN = WAVES * SQUARE;
constexpr float MASKED = -1e30f, LOG2_E = 1.44269504f;

using Operand = Fragment::Operand;
using Sum = Fragment::Sum;

constexpr int CHANNELS = SIDE;  // in a tile, 32, 64 or 128; those from D on are zero
constexpr int OWN_TILE = Fragment::ROOMY ? 0 : OWN * CHANNELS;  // elements of own rows that stay in shared memory
constexpr int MEMORY_BYTES = (Fragment::ROOMY || CHANNELS < 128 ? 32 : 48) << 10;

// One head's rows.
struct Head {
    static constexpr int OTHERS = (CHANNELS <= 64 ? 64 : 32) / (Fragment::ROOMY ? 1 : 2), CHUNKS = CHANNELS / WIDTH, SQUARES = CHANNELS / SQUARE;
    static constexpr int TILE = OTHERS * CHANNELS;  // elements
    using Rows = Tile<CHUNKS>;

    // Rows first.. of a source into a tile; rows from S on are zero.
    template <int ROWS>
    static DEVICE_MEMBER void copy(bf16* tile, const act* source, int64_t stride, int64_t first, int64_t S, int64_t D) {
        for (int place = threadIdx.x; place < ROWS * CHUNKS; place += THREADS) {
            const int row = place / CHUNKS, column = place % CHUNKS * WIDTH;
            const bool inside = first + row < S && column < D;
            const act* from = source + (first + row) * stride + column;
            if (is_wide(D))
                copy_chunk(tile + Rows::place(row, place % CHUNKS), inside ? from : source, inside);
            else
                copy_elements(tile + Rows::place(row, place % CHUNKS), from, inside ? D - column : 0);
        }
    }

    // The wave's own rows of a tile, in registers if these have room for them.
    struct Own {
        Operand kept[Fragment::ROOMY ? SQUARES : 1];
        bf16* tile;

        DEVICE_MEMBER explicit Own(bf16* source) : tile(source) {
            if constexpr (Fragment::ROOMY)
                for (int c = 0; c < SQUARES; ++c) kept[c] = load(c);
        }
        DEVICE_MEMBER Operand load(int c) const { return Fragment::load(Rows{tile}, threadIdx.x / WAVE * SQUARE, c * SQUARE); }
        DEVICE_MEMBER Operand square(int c) const {
            if constexpr (Fragment::ROOMY)
                return kept[c];
            else
                return load(c);
        }
    };

    // products = own rows . rows of a tile, for squares first <= j < last of these
    static DEVICE_MEMBER void multiply(Sum (&products)[OTHERS / SQUARE], const Own& own, bf16* tile, int first, int last) {
#pragma unroll
        for (int j = 0; j < OTHERS / SQUARE; ++j) {
            products[j] = Sum{};
            if (first <= j && j < last)
#pragma unroll
                for (int c = 0; c < SQUARES; ++c)
                    Fragment::multiply(products[j], own.square(c), Fragment::load(Rows{tile}, j * SQUARE, c * SQUARE));
        }
    }

    // sums += weights . rows of a tile, the weights rounded to bf16, for squares first <= j < last of these
    static DEVICE_MEMBER void mix(Sum (&sums)[SQUARES], const Sum (&weights)[OTHERS / SQUARE], bf16* tile, bf16* scratch, int first,
                                  int last) {
#pragma unroll
        for (int j = 0; j < OTHERS / SQUARE; ++j)
            if (first <= j && j < last) {
                const Operand left = Fragment::pack(weights[j], scratch);
#pragma unroll
                for (int c = 0; c < SQUARES; ++c)
                    Fragment::multiply(sums[c], left, Fragment::load_transposed(Rows{tile}, c * SQUARE, j * SQUARE));
            }
    }

    // The wave's own rows to a target, those before S.
    static DEVICE_MEMBER void write(act* target, const Sum (&sums)[SQUARES], const float (&factor)[Fragment::SLOTS], int64_t stride,
                                    int64_t first, int64_t S, int64_t D) {
#pragma unroll
        for (int c = 0; c < SQUARES; ++c)
#pragma unroll
            for (int e = 0; e < Fragment::SIZE; ++e) {
                const int64_t row = first + threadIdx.x / WAVE * SQUARE + Fragment::row(Fragment::slot(e));
                const int64_t d = c * SQUARE + Fragment::column(e);
                if (row < S && d < D) narrow(target[row * stride + d], sums[c].value[e] * factor[Fragment::slot(e)]);
            }
    }
};

// How many squares of rows from `at` on lie before `end`, at most all of a tile's.
DEVICE int squares_before(int64_t end, int64_t at) {
    const int64_t squares = (end - at + SQUARE - 1) / SQUARE;
    return squares < Head::OTHERS / SQUARE ? static_cast<int>(squares) : Head::OTHERS / SQUARE;
}

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
    Head::copy<OWN>(memory, q, stride, first, S, D);
    copies_commit();
    copies_wait<0>();
    __syncthreads();
    const Head::Own queries(memory);
    __syncthreads();
    Head::copy<Head::OTHERS>(keys, k, stride, 0, S, D);
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
        Head::copy<Head::OTHERS>(values, v, stride, at, S, D);
        copies_commit();
        const int squares = squares_before(own_row < S ? own_end : 0, at);  // none in a wave beyond the sequence
        Head::multiply(scores, queries, keys, 0, squares);
        float raised[Fragment::SLOTS], added[Fragment::SLOTS] = {}, shrink[Fragment::SLOTS];
        for (int slot = 0; slot < Fragment::SLOTS; ++slot) raised[slot] = MASKED;
        if (at + Head::OTHERS > first) {  // else every query sees every key of the tile
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
        if (at + Head::OTHERS < end) Head::copy<Head::OTHERS>(keys, k, stride, at + Head::OTHERS, S, D);
        copies_commit();
        Head::mix(mixed, scores, values, scratch, 0, squares);
    }
    float factor[Fragment::SLOTS];
    for (int slot = 0; slot < Fragment::SLOTS; ++slot) {
        const int64_t row = own_row + Fragment::row(slot);
        factor[slot] = 1.0f / sum[slot];
        if (Fragment::column(0) == 0 && row < S) logsumexp[head * S + row] = maximum[slot] / LOG2_E + logf(sum[slot]);
    }
    Head::write(y + b * S * H * D + h * D, mixed, factor, H * D, first, S, D);
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

    Head::copy<OWN>(memory, OWNS_KEYS ? k : q, stride, first, S, D);
    Head::copy<OWN>(memory + OWN * CHANNELS, OWNS_KEYS ? v : dout, own_stride, first, S, D);
    copies_commit();
    copies_wait<0>();
    __syncthreads();
    const Head::Own own_first(memory), own_second(memory + OWN * CHANNELS);
    bf16* tiles_of_others = memory + 2 * OWN_TILE;
    __syncthreads();

    // A turn's tiles and, if others are the queries, their delta and logsumexp.
    auto fetch = [&](int64_t at, int turn) {
        if (at < end) {
            bf16* tile = tiles_of_others + turn * 2 * Head::TILE;
            Head::copy<Head::OTHERS>(tile, OWNS_KEYS ? q : k, stride, at, S, D);
            Head::copy<Head::OTHERS>(tile + Head::TILE, OWNS_KEYS ? dout : v, other_stride, at, S, D);
            if (OWNS_KEYS && threadIdx.x < Head::OTHERS) {
                const int64_t query = at + threadIdx.x;
                figures[turn][0][threadIdx.x] = query < S ? delta[head * S + query] : 0.0f;
                figures[turn][1][threadIdx.x] = query < S ? logsumexp[head * S + query] * LOG2_E : 0.0f;
            }
        }
        copies_commit();
    };
    float own_delta[Fragment::SLOTS], own_logsumexp[Fragment::SLOTS];
    for (int slot = 0; slot < Fragment::SLOTS; ++slot) {
        const int64_t query = own_row + Fragment::row(slot);
        own_delta[slot] = !OWNS_KEYS && query < S ? delta[head * S + query] : 0.0f;
        own_logsumexp[slot] = !OWNS_KEYS && query < S ? logsumexp[head * S + query] * LOG2_E : 0.0f;
    }
    Sum first_sums[Head::SQUARES] = {}, second_sums[OWNS_KEYS ? Head::SQUARES : 1] = {};
    fetch(begin, 0);
    int turn = 0;
    for (int64_t at = begin; at < end; at += Head::OTHERS, turn ^= 1) {
        copies_wait<0>();
        __syncthreads();
        fetch(at + Head::OTHERS, turn ^ 1);
        if (own_row >= S) continue;
        // keys see queries from theirs on, queries see keys up to theirs
        const int own = static_cast<int>(own_row - at), first_square = OWNS_KEYS && own > 0 ? own / SQUARE : 0;
        const int last_square = squares_before(OWNS_KEYS || own_row + SQUARE > S ? S : own_row + SQUARE, at);
        bf16 *other_first = tiles_of_others + turn * 2 * Head::TILE, *other_second = other_first + Head::TILE;
        Sum weights[Head::OTHERS / SQUARE], gradients[Head::OTHERS / SQUARE];
        Head::multiply(weights, own_first, other_first, first_square, last_square);
        Head::multiply(gradients, own_second, other_second, first_square, last_square);
#pragma unroll
        for (int j = 0; j < Head::OTHERS / SQUARE; ++j) {
            // only the square on the diagonal and the last one of the sequence have elements that are not to count
            const bool ragged = j * SQUARE == own || at + (j + 1) * SQUARE > S || own_row + SQUARE > S;
#pragma unroll
            for (int e = 0; e < Fragment::SIZE; ++e) {
                const int slot = Fragment::slot(e), row = Fragment::row(slot), column = j * SQUARE + Fragment::column(e);
                const float product = OWNS_KEYS ? figures[turn][0][column] : own_delta[slot];
                const float normalizer = OWNS_KEYS ? figures[turn][1][column] : own_logsumexp[slot];
                weights[j].value[e] = quick_exp2(weights[j].value[e] * power_scale - normalizer);
                if (ragged) {
                    const bool seen = OWNS_KEYS ? own + row <= column && at + column < S : column <= own + row && own_row + row < S;
                    if (!seen) weights[j].value[e] = 0.0f;
                }
                gradients[j].value[e] = weights[j].value[e] * (gradients[j].value[e] - product);
            }
        }
        Head::mix(first_sums, gradients, other_first, scratch, first_square, last_square);
        if constexpr (OWNS_KEYS) Head::mix(second_sums, weights, other_second, scratch, first_square, last_square);
    }
    float one[Fragment::SLOTS], scales[Fragment::SLOTS];
    for (int slot = 0; slot < Fragment::SLOTS; ++slot) {
        one[slot] = 1.0f;
        scales[slot] = scale;
    }
    act* target = dqkv + b * S * stride + h * D;
    Head::write(target + (OWNS_KEYS ? H * D : 0), first_sums, scales, stride, first, S, D);
    if constexpr (OWNS_KEYS) Head::write(target + 2 * H * D, second_sums, one, stride, first, S, D);
}

constexpr int SCRATCH = SQUARE * SQUARE;  // elements, a wave

KERNEL(THREADS) attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ Words memory[MEMORY_BYTES / 16], scratches[WAVES * SCRATCH / WIDTH];
    bf16 *tiles = reinterpret_cast<bf16*>(memory), *scratch = reinterpret_cast<bf16*>(scratches) + threadIdx.x / WAVE * SCRATCH;
    forward(tiles, scratch, y, logsumexp, qkv, B, S, H, D);
}

KERNEL(THREADS) attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv, int64_t B,
                                   int64_t S, int64_t H, int64_t D) {
    __shared__ Words memory[MEMORY_BYTES / 16], scratches[WAVES * SCRATCH / WIDTH];
    __shared__ float figures[2][2][OWN];
    bf16 *tiles = reinterpret_cast<bf16*>(memory), *scratch = reinterpret_cast<bf16*>(scratches) + threadIdx.x / WAVE * SCRATCH;
    const int64_t half = gridDim.x / 2;
    if (blockIdx.x < half)
        backward<true>(tiles, scratch, figures, dqkv, dy, delta, logsumexp, qkv, blockIdx.x, B, S, H, D);
    else
        backward<false>(tiles, scratch, figures, dqkv, dy, delta, logsumexp, qkv, blockIdx.x - half, B, S, H, D);
}

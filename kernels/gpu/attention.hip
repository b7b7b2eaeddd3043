// Attention for every chip and dtype. Where a chip has matrix instructions, attention_mma.hip, attention_short.hip and
// attention_short_backward.hip (NVIDIA) or attention_amd.hip and attention_backward_amd.hip serve forward and backward
// in bf16, for heads of at most WIDE_CHANNELS.
//
// attention_forward: y[b,i,h] = sum over j <= i of p[i,j] v[b,j,h]; p[i] = softmax over j <= i of q_i . k_j / sqrt(D).
// qkv (B, S, 3, H, D) row-major, act: queries, keys, values; y (B, S, H, D), act; logsumexp (B, H, S) f32 of the scaled
// scores; sums in f32. The S x S matrix is never stored.
// Grid B*H*ceil(S / TILE): a block owns a query tile of TILE rows of one head and visits the key-value tiles that
// causality lets it see. TILE is NARROW_TILE for heads of at most NARROW_CHANNELS, WIDE_TILE up to WIDE_CHANNELS and
// WIDEST_TILE up to WIDEST_CHANNELS, so that the tiles of all fit the same shared memory. The softmax is online: Milakov
// & Gimelshein 2018, arXiv:1805.02867; tiles as in Dao et al. 2022, arXiv:2205.14135.
// Minimum traffic: 4*B*S*H*D*sizeof(act) + 4*B*H*S bytes.
//
// attention_delta: delta_i = dy_i . y_i. delta (B, H, S) f32. A thread takes WIDTH channels of a row, then one thread
// per row adds up; grid ceil(B*H*S / rows of a block). Minimum traffic: 2*B*S*H*D*sizeof(act) + 4*B*H*S bytes.
//
// attention_backward: p again from logsumexp, then with dp[i,j] = dy_i . v_j:
//   ds = p * (dp - delta);  dq_i = sum ds k_j / sqrt(D);  dk_j = sum ds q_i / sqrt(D);  dv_j = sum p dy_i.
// Grid 2*B*H*ceil(S / TILE): the first half of the blocks owns query tiles and computes dq, the second half owns
// key-value tiles and computes dk and dv. So no two blocks add to the same number, and p is computed twice.
// Minimum traffic: 7*B*S*H*D*sizeof(act) + 8*B*H*S bytes. Vaswani et al. 2017, arXiv:1706.03762.
//
// attention_decode: one new token per sequence, at positions[b]. Its key and value go into row positions[b] % T of the
// cache (B, H, T, D), and its query attends to the last T tokens, or to all if there are fewer. Grid B*H:
// a block owns a head, and its lanes share the keys. Minimum traffic: 2*B*H*D*sizeof(act) bytes per cached position.
//
// fill_cache: the first S tokens of K sequences at once. Sequence k has the cache of sequence slots[k], which gets its
// keys and values as rows 0 to S-1, S <= T. A slot that is none of the B is left out. A thread for each number of a key,
// THREADS a block. Minimum traffic: 4*K*S*H*D*sizeof(act) bytes.
#include "gpu/simt/attention_tiles.h"
#include "gpu/simt/cached_attention.h"
#include "gpu/simt/reduce.h"

// A compilation for heads of more than WIDE_CHANNELS has another limit: one kernel for all would need more registers.
#ifndef HEAD_CHANNELS
#define HEAD_CHANNELS WIDE_CHANNELS
#endif

constexpr int MOST_CHANNELS = HEAD_CHANNELS;
constexpr bool HAS_NARROW = MOST_CHANNELS <= WIDE_CHANNELS;
constexpr int LEAST_TILE = HAS_NARROW ? WIDE_TILE : WIDEST_TILE;
constexpr int PLANE = Tiles<NARROW_TILE>::PLANE;
static_assert(Tiles<LEAST_TILE>::PLANE <= PLANE, "");

template <int TILE>
DEVICE void forward(float* memory, act* y, float* logsumexp, const act* qkv, int64_t S, int64_t H, int64_t D) {
    using T = Tiles<TILE>;
    const int64_t tiles = (S + TILE - 1) / TILE, head = blockIdx.x / tiles, b = head / H, h = head % H,
                  stride = 3 * H * D;
    const int64_t first = (blockIdx.x % tiles) * TILE;
    const T t(D);
    float *queries = memory, *keys_or_values = memory + PLANE, *probabilities = memory + 2 * PLANE;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D;
    const float scale = 1.0f / sqrtf(static_cast<float>(D));
    float maximum[T::EACH], sum[T::EACH], factor[T::EACH], out[T::EACH][T::CHANNELS] = {};
    for (int r = 0; r < T::EACH; ++r) {
        maximum[r] = MASKED;
        sum[r] = 0.0f;
    }
    t.load_rows(queries, q, first, S, stride);
    for (int64_t key = 0; key < S && key < first + TILE; key += TILE) {
        float scores[T::EACH][T::EACH];
        t.load_rows(keys_or_values, k, key, S, stride);
        __syncthreads();
        t.multiply_ABt(scores, queries, keys_or_values);
        for (int r = 0; r < T::EACH; ++r) {
            const int64_t i = first + t.y + r * T::SIDE;
            float highest = MASKED, added = 0.0f;
            for (int c = 0; c < T::EACH; ++c) {
                const int64_t j = key + t.column + c * T::SIDE;
                scores[r][c] = j <= i && j < S ? scores[r][c] * scale : MASKED;
                highest = fmaxf(highest, scores[r][c]);
            }
            // sums so far are relative to the old maximum: shrink them to the new one
            const float raised = fmaxf(maximum[r], T::row_maximum(highest)), shrink = exp_of(maximum[r] - raised);
            for (int c = 0; c < T::EACH; ++c) {
                const float probability = scores[r][c] > MASKED ? exp_of(scores[r][c] - raised) : 0.0f;
                probabilities[(t.y + r * T::SIDE) * T::ROW + t.column + c * T::SIDE] = probability;
                added += probability;
            }
            maximum[r] = raised;
            sum[r] = sum[r] * shrink + T::row_sum(added);
            for (int c = 0; c < T::CHANNELS; ++c) out[r][c] *= shrink;
        }
        __syncthreads();
        t.load_rows(keys_or_values, v, key, S, stride);
        __syncthreads();
        t.accumulate_AB(out, probabilities, keys_or_values);
        __syncthreads();
    }
    for (int r = 0; r < T::EACH; ++r) {
        const int64_t i = first + t.y + r * T::SIDE;
        factor[r] = 1.0f / sum[r];
        if (t.lane == 0 && i < S) logsumexp[head * S + i] = maximum[r] + logf(sum[r]);
    }
    t.store_rows(y + b * S * H * D + h * D, out, factor, first, S, H * D);
}

template <int TILE>
DEVICE void backward(float* memory, act* dqkv, const act* dy, const float* delta, const float* logsumexp,
                     const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    using T = Tiles<TILE>;
    const int64_t tiles = (S + TILE - 1) / TILE, half = B * H * tiles, block = blockIdx.x % half;
    const bool owns_keys = blockIdx.x >= half;
    const int64_t head = block / tiles, first = block % tiles * TILE, b = head / H, h = head % H, stride = 3 * H * D;
    const T t(D);
    const int64_t end_of_tile = first + TILE < S ? first + TILE : S;
    const float scale = 1.0f / sqrtf(static_cast<float>(D));
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D, *dout = dy + b * S * H * D + h * D;
    // resident: the tile that the block owns, k and v or q and dy; streamed: those that it visits, the other pair
    float *resident_qk = memory, *resident_vdy = resident_qk + PLANE;
    float *streamed_qk = resident_vdy + PLANE, *streamed_vdy = streamed_qk + PLANE;
    float *ds = streamed_vdy + PLANE, *p = ds + TILE * T::ROW;
    float *tile_delta = p + TILE * T::ROW, *tile_logsumexp = tile_delta + TILE;
    float dqk[T::EACH][T::CHANNELS] = {}, dv[T::EACH][T::CHANNELS] = {}, one[T::EACH];
    for (int r = 0; r < T::EACH; ++r) one[r] = 1.0f;

    t.load_rows(resident_qk, owns_keys ? k : q, first, S, stride);
    t.load_rows(resident_vdy, owns_keys ? v : dout, first, S, owns_keys ? stride : H * D);
    const int64_t begin = owns_keys ? first : 0, end = owns_keys ? S : end_of_tile;
    for (int64_t at = begin; at < end; at += TILE) {
        t.load_rows(streamed_qk, owns_keys ? q : k, at, S, stride);
        t.load_rows(streamed_vdy, owns_keys ? dout : v, at, S, owns_keys ? H * D : stride);
        const int64_t queries = owns_keys ? at : first;
        if (threadIdx.x < TILE) {
            const int64_t i = queries + threadIdx.x;
            tile_delta[threadIdx.x] = i < S ? delta[head * S + i] : 0.0f;
            tile_logsumexp[threadIdx.x] = i < S ? logsumexp[head * S + i] : 0.0f;
        }
        __syncthreads();
        float scores[T::EACH][T::EACH], dp[T::EACH][T::EACH];
        t.multiply_ABt(scores, resident_qk, streamed_qk);
        t.multiply_ABt(dp, resident_vdy, streamed_vdy);
        for (int r = 0; r < T::EACH; ++r)
            for (int c = 0; c < T::EACH; ++c) {
                const int row = t.y + r * T::SIDE, column = t.column + c * T::SIDE, query = owns_keys ? column : row;
                const int64_t i = queries + query, j = owns_keys ? first + row : at + column;
                const float probability = j <= i && i < S ? exp_of(scores[r][c] * scale - tile_logsumexp[query]) : 0.0f;
                p[row * T::ROW + column] = probability;
                ds[row * T::ROW + column] = probability * (dp[r][c] - tile_delta[query]) * scale;
            }
        __syncthreads();
        t.accumulate_AB(dqk, ds, streamed_qk);
        if (owns_keys) t.accumulate_AB(dv, p, streamed_vdy);
        __syncthreads();
    }
    act* target = dqkv + b * S * stride + h * D;
    t.store_rows(target + (owns_keys ? H * D : 0), dqk, one, first, S, stride);
    if (owns_keys) t.store_rows(target + 2 * H * D, dv, one, first, S, stride);
}

KERNEL(THREADS)
attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ float memory[2 * PLANE + NARROW_TILE * (NARROW_TILE + 1)];
    if (HAS_NARROW && D <= NARROW_CHANNELS)
        forward<NARROW_TILE>(memory, y, logsumexp, qkv, S, H, D);
    else
        forward<LEAST_TILE>(memory, y, logsumexp, qkv, S, H, D);
}

KERNEL(THREADS)
attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv, int64_t B,
                   int64_t S, int64_t H, int64_t D) {
    __shared__ float memory[4 * PLANE + 2 * NARROW_TILE * (NARROW_TILE + 1) + 2 * NARROW_TILE];
    if (HAS_NARROW && D <= NARROW_CHANNELS)
        backward<NARROW_TILE>(memory, dqkv, dy, delta, logsumexp, qkv, B, S, H, D);
    else
        backward<LEAST_TILE>(memory, dqkv, dy, delta, logsumexp, qkv, B, S, H, D);
}

KERNEL(THREADS) attention_delta(float* delta, const act* dy, const act* y, int64_t B, int64_t H, int64_t S, int64_t D) {
    __shared__ float products[THREADS];
    const unsigned vectors = static_cast<unsigned>((D + WIDTH - 1) / WIDTH), rows = THREADS / vectors;
    const int64_t first = int64_t{blockIdx.x} * rows, row = first + threadIdx.x / vectors;
    const int64_t d = threadIdx.x % vectors * WIDTH;
    float product = 0.0f;
    if (threadIdx.x < rows * vectors && row < B * H * S) {
        float left[WIDTH], right[WIDTH];
        load_some(left, dy + row * D + d, D - d, is_wide(D));
        load_some(right, y + row * D + d, D - d, is_wide(D));
        for (int i = 0; i < WIDTH; ++i) product += left[i] * right[i];
    }
    products[threadIdx.x] = product;
    __syncthreads();
    const int64_t own_row = first + threadIdx.x, position = own_row / H;
    if (threadIdx.x >= rows || own_row >= B * H * S) return;
    float sum = 0.0f;
    for (unsigned i = 0; i < vectors; ++i) sum += products[threadIdx.x * vectors + i];
    delta[(position / S * H + own_row % H) * S + position % S] = sum;
}

using Softmaxes = WaveSoftmaxes<DECODE_THREADS, MOST_CHANNELS>;
constexpr int LEAST_LANES = 4;

// Loads WIDTH channels of one of a head's `length` cached rows; a row beyond the last may be any row. WIDE: D is a
// multiple of WIDTH. Then there is no test, so that the loads of several rows do not wait for each other.
template <bool WIDE>
DEVICE void load_cached(float (&values)[WIDTH], const act* cached, int64_t row, int64_t length, int channel,
                        int64_t D) {
    const act* source = cached + (row < length ? row : length - 1) * D + (channel < D ? channel : 0);
    if constexpr (WIDE)
        load(values, source);
    else
        load_some(values, source, D - channel, false);
}

// A team visits every TEAMS-th key. A lane whose channels are beyond D has a query of zeros, and its sums are not read.
template <int LANES, bool WIDE>
DEVICE void decode(Softmaxes& of, act* y, const act* query, const act* keys, const act* values, int64_t length,
                   int64_t D) {
    constexpr int TEAMS = DECODE_THREADS / LANES,
                  TOGETHER = 4;  // keys that a team visits in a turn
    const int team = threadIdx.x / LANES, channel = threadIdx.x % LANES * WIDTH;
    const float scale = 1.0f / sqrtf(static_cast<float>(D));
    TeamSoftmax<LANES> softmax;
    float own_query[WIDTH];
    load_some(own_query, query + channel, D - channel, WIDE);
    for (int64_t first = 0; first < length; first += TEAMS * TOGETHER) {  // all lanes, because they exchange sums
        float scores[TOGETHER], raised = softmax.maximum;
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u) {
            const int64_t j = first + u * TEAMS + team;
            float key[WIDTH];
            load_cached<WIDE>(key, keys, j, length, channel, D);
            scores[u] = softmax.product(own_query, key) * scale;
            if (j >= length) scores[u] = MASKED;
            raised = fmaxf(raised, scores[u]);
        }
        softmax.raise_to(raised);
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u) {
            float value[WIDTH];
            load_cached<WIDE>(value, values, first + u * TEAMS + team, length, channel, D);
            softmax.add(scores[u], value);
        }
    }
    of.store(softmax);
    if (threadIdx.x < D) narrow(y[threadIdx.x], of.channel(threadIdx.x));
}

template <bool WIDE>
DEVICE void decode(Softmaxes& of, act* y, const act* query, const act* keys, const act* values, int64_t length,
                   int64_t D) {
    if (D <= LEAST_LANES * WIDTH)
        decode<LEAST_LANES, WIDE>(of, y, query, keys, values, length, D);
    else if (D <= 2 * LEAST_LANES * WIDTH)
        decode<2 * LEAST_LANES, WIDE>(of, y, query, keys, values, length, D);
    else
        decode<MOST_CHANNELS / WIDTH, WIDE>(of, y, query, keys, values, length, D);
}

KERNEL(DECODE_THREADS)
attention_decode(act* y, act* keys, act* values, const act* qkv, const int32_t* positions, int64_t B, int64_t H,
                 int64_t D, int64_t T) {
    const int64_t head = blockIdx.x, b = head / H, h = head % H;
    const int64_t row = positions[b] % T, length = positions[b] < T ? positions[b] + 1 : T;
    const act* query = qkv + (b * 3 * H + h) * D;
    act *cached_keys = keys + head * T * D, *cached_values = values + head * T * D;
    if (threadIdx.x < D) {
        cached_keys[row * D + threadIdx.x] = query[H * D + threadIdx.x];
        cached_values[row * D + threadIdx.x] = query[2 * H * D + threadIdx.x];
    }
    __syncthreads();
    __shared__ Softmaxes of;
    if (is_wide(D))
        decode<true>(of, y + head * D, query, cached_keys, cached_values, length, D);
    else
        decode<false>(of, y + head * D, query, cached_keys, cached_values, length, D);
}

KERNEL(THREADS)
fill_cache(act* keys, act* values, const act* qkv, const int32_t* slots, int64_t B, int64_t H, int64_t T, int64_t D,
           int64_t K, int64_t S) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x, d = i % D, h = i / D % H, token = i / (D * H);
    const int64_t k = token / S, s = token % S;
    if (k >= K) return;
    const int64_t slot = slots[k], key = (token * 3 + 1) * H * D + h * D + d, row = ((slot * H + h) * T + s) * D + d;
    if (slot < 0 || slot >= B) return;
    keys[row] = qkv[key];
    values[row] = qkv[key + H * D];
}

// Formulas in kernels/cpu/attention.cpp. For every chip and dtype; attention_units.hip serves forward and backward in bf16
// where there are matrix units.
//
// Forward and backward go by square tiles of TILE queries and keys in shared memory: 32 for D <= 64, 16 for D <= 128. A block
// of SIDE x SIDE threads owns a tile of rows of one head and passes over the others' tiles that causality leaves it. Forward,
// the softmax is online (Milakov & Gimelshein 2018, arXiv:1805.02867; tiles as in Dao et al. 2022, arXiv:2205.14135).
// Backward, the first half of the blocks owns queries and makes dq, the second owns keys and makes dk and dv: nothing is
// added by two blocks. Grid: B*H*ceil(S / TILE), twice that backward.
//
// Delta: a thread takes WIDTH channels of a row; grid ceil(B*H*S / rows of a block). Decode: a wave owns a head, a lane the
// product with one key; grid ceil(B*H / WAVES).
#include "platform.h"
#include "reduce.h"
#include "values.h"
#include "formulas.h"

constexpr int SIDE = 16, THREADS = SIDE * SIDE;
constexpr float MASKED = -1e30f;

// What a block needs for D channels in tiles of TILE rows; shared memory is handed in as one piece.
template <int TILE>
struct Tiles {
    static constexpr int EACH = TILE / SIDE, MOST_CHANNELS = TILE == 32 ? 64 : 128, CHANNELS = MOST_CHANNELS / SIDE;
    static constexpr int ROW = TILE + 1, PLANE = TILE * (MOST_CHANNELS + 1);

    int D, x, y;

    // Rows first.. of a source, `row_stride` floats apart, into a plane; rows from `limit` on are zero.
    DEVICE_MEMBER void load_rows(float* plane, const act* source, int64_t first, int64_t limit, int64_t row_stride) const {
        for (int place = threadIdx.x; place < TILE * D; place += THREADS) {
            const int row = place / D, d = place % D;
            plane[row * (D + 1) + d] = first + row < limit ? widen(source[(first + row) * row_stride + d]) : 0.0f;
        }
    }

    // products[r][c] = row (y + r * SIDE) of a . row (x + c * SIDE) of b
    DEVICE_MEMBER void multiply(float (&products)[EACH][EACH], const float* a, const float* b) const {
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < EACH; ++c) products[r][c] = 0.0f;
#pragma unroll 8
        for (int d = 0; d < D; ++d)
            for (int r = 0; r < EACH; ++r)
                for (int c = 0; c < EACH; ++c)
                    products[r][c] += a[(y + r * SIDE) * (D + 1) + d] * b[(x + c * SIDE) * (D + 1) + d];
    }

    // sums[r][c] += sum over j of weights[y + r * SIDE][j] * rows[j][x + c * SIDE]
    DEVICE_MEMBER void mix(float (&sums)[EACH][CHANNELS], const float* weights, const float* rows) const {
#pragma unroll 4
        for (int j = 0; j < TILE; ++j)
            for (int r = 0; r < EACH; ++r)
                for (int c = 0; c < CHANNELS; ++c)
                    if (x + c * SIDE < D) sums[r][c] += weights[(y + r * SIDE) * ROW + j] * rows[j * (D + 1) + x + c * SIDE];
    }

    // Rows y + r * SIDE times factor[r] to a target, those before `limit`.
    DEVICE_MEMBER void store_rows(act* target, const float (&sums)[EACH][CHANNELS], const float (&factor)[EACH], int64_t first,
                             int64_t limit, int64_t row_stride) const {
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < CHANNELS; ++c) {
                const int64_t row = first + y + r * SIDE, d = x + c * SIDE;
                if (row < limit && d < D) narrow(target[row * row_stride + d], sums[r][c] * factor[r]);
            }
    }
};

// Over the SIDE threads of a row, which are neighbours in a wave.
DEVICE float row_sum(float value) {
    for (int mask = SIDE / 2; mask > 0; mask /= 2) value += wave_exchange(value, mask);
    return value;
}

DEVICE float row_maximum(float value) {
    for (int mask = SIDE / 2; mask > 0; mask /= 2) value = fmaxf(value, wave_exchange(value, mask));
    return value;
}

constexpr int PLANE = Tiles<32>::PLANE > Tiles<16>::PLANE ? Tiles<32>::PLANE : Tiles<16>::PLANE;

template <int TILE>
DEVICE void forward(float* memory, act* y, float* logsumexp, const act* qkv, int64_t S, int64_t H, int64_t D) {
    using T = Tiles<TILE>;
    const int64_t tiles = (S + TILE - 1) / TILE, head = blockIdx.x / tiles, b = head / H, h = head % H, stride = 3 * H * D;
    const int64_t first = (blockIdx.x % tiles) * TILE;
    const T t = {static_cast<int>(D), static_cast<int>(threadIdx.x % SIDE), static_cast<int>(threadIdx.x / SIDE)};
    float *queries = memory, *others = memory + PLANE, *weights = memory + 2 * PLANE;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D;
    const float scale = 1.0f / sqrtf(static_cast<float>(D));
    float maximum[T::EACH], sum[T::EACH], factor[T::EACH], mixed[T::EACH][T::CHANNELS] = {};
    for (int r = 0; r < T::EACH; ++r) {
        maximum[r] = MASKED;
        sum[r] = 0.0f;
    }
    t.load_rows(queries, q, first, S, stride);
    for (int64_t other = 0; other < S && other < first + TILE; other += TILE) {
        float scores[T::EACH][T::EACH];
        t.load_rows(others, k, other, S, stride);
        __syncthreads();
        t.multiply(scores, queries, others);
        for (int r = 0; r < T::EACH; ++r) {
            const int64_t i = first + t.y + r * SIDE;
            float highest = MASKED, added = 0.0f;
            for (int c = 0; c < T::EACH; ++c) {
                const int64_t j = other + t.x + c * SIDE;
                scores[r][c] = j <= i && j < S ? scores[r][c] * scale : MASKED;
                highest = fmaxf(highest, scores[r][c]);
            }
            const float raised = fmaxf(maximum[r], row_maximum(highest)), shrink = exp_of(maximum[r] - raised);
            for (int c = 0; c < T::EACH; ++c) {
                const float weight = scores[r][c] > MASKED ? exp_of(scores[r][c] - raised) : 0.0f;
                weights[(t.y + r * SIDE) * T::ROW + t.x + c * SIDE] = weight;
                added += weight;
            }
            maximum[r] = raised;
            sum[r] = sum[r] * shrink + row_sum(added);
            for (int c = 0; c < T::CHANNELS; ++c) mixed[r][c] *= shrink;
        }
        __syncthreads();
        t.load_rows(others, v, other, S, stride);
        __syncthreads();
        t.mix(mixed, weights, others);
        __syncthreads();
    }
    for (int r = 0; r < T::EACH; ++r) {
        const int64_t i = first + t.y + r * SIDE;
        factor[r] = 1.0f / sum[r];
        if (t.x == 0 && i < S) logsumexp[head * S + i] = maximum[r] + logf(sum[r]);
    }
    t.store_rows(y + b * S * H * D + h * D, mixed, factor, first, S, H * D);
}

template <int TILE>
DEVICE void backward(float* memory, act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv,
                     int64_t B, int64_t S, int64_t H, int64_t D) {
    using T = Tiles<TILE>;
    const int64_t tiles = (S + TILE - 1) / TILE, half = B * H * tiles, block = blockIdx.x % half;
    const bool owns_keys = blockIdx.x >= half;
    const int64_t head = block / tiles, first = block % tiles * TILE, b = head / H, h = head % H, stride = 3 * H * D;
    const T t = {static_cast<int>(D), static_cast<int>(threadIdx.x % SIDE), static_cast<int>(threadIdx.x / SIDE)};
    const int64_t own_end = first + TILE < S ? first + TILE : S;
    const float scale = 1.0f / sqrtf(static_cast<float>(D));
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D, *dout = dy + b * S * H * D + h * D;
    float *own = memory, *own_second = own + PLANE, *other = own_second + PLANE, *other_second = other + PLANE;
    float *ds = other_second + PLANE, *p = ds + TILE * T::ROW, *product = p + TILE * T::ROW, *normalizer = product + TILE;
    float first_sums[T::EACH][T::CHANNELS] = {}, second_sums[T::EACH][T::CHANNELS] = {}, one[T::EACH];
    for (int r = 0; r < T::EACH; ++r) one[r] = 1.0f;

    t.load_rows(own, owns_keys ? k : q, first, S, stride);
    t.load_rows(own_second, owns_keys ? v : dout, first, S, owns_keys ? stride : H * D);
    const int64_t begin = owns_keys ? first : 0, end = owns_keys ? S : own_end;
    for (int64_t at = begin; at < end; at += TILE) {
        t.load_rows(other, owns_keys ? q : k, at, S, stride);
        t.load_rows(other_second, owns_keys ? dout : v, at, S, owns_keys ? H * D : stride);
        const int64_t queries = owns_keys ? at : first;
        if (threadIdx.x < TILE) {
            const int64_t i = queries + threadIdx.x;
            product[threadIdx.x] = i < S ? delta[head * S + i] : 0.0f;
            normalizer[threadIdx.x] = i < S ? logsumexp[head * S + i] : 0.0f;
        }
        __syncthreads();
        float scores[T::EACH][T::EACH], dp[T::EACH][T::EACH];
        t.multiply(scores, own, other);
        t.multiply(dp, own_second, other_second);
        for (int r = 0; r < T::EACH; ++r)
            for (int c = 0; c < T::EACH; ++c) {
                const int row = t.y + r * SIDE, column = t.x + c * SIDE, query = owns_keys ? column : row;
                const int64_t i = queries + query, j = owns_keys ? first + row : at + column;
                const float weight = j <= i && i < S ? exp_of(scores[r][c] * scale - normalizer[query]) : 0.0f;
                p[row * T::ROW + column] = weight;
                ds[row * T::ROW + column] = weight * (dp[r][c] - product[query]) * scale;
            }
        __syncthreads();
        t.mix(first_sums, ds, other);
        if (owns_keys) t.mix(second_sums, p, other_second);
        __syncthreads();
    }
    act* target = dqkv + b * S * stride + h * D;
    t.store_rows(target + (owns_keys ? H * D : 0), first_sums, one, first, S, stride);
    if (owns_keys) t.store_rows(target + 2 * H * D, second_sums, one, first, S, stride);
}

KERNEL(THREADS) attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ float memory[2 * PLANE + 32 * 33];
    if (D <= 64)
        forward<32>(memory, y, logsumexp, qkv, S, H, D);
    else
        forward<16>(memory, y, logsumexp, qkv, S, H, D);
}

KERNEL(THREADS) attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv,
                                   int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ float memory[4 * PLANE + 2 * 32 * 33 + 2 * 32];
    if (D <= 64)
        backward<32>(memory, dqkv, dy, delta, logsumexp, qkv, B, S, H, D);
    else
        backward<16>(memory, dqkv, dy, delta, logsumexp, qkv, B, S, H, D);
}

KERNEL(THREADS) attention_delta(float* delta, const act* dy, const act* y, int64_t B, int64_t H, int64_t S, int64_t D) {
    __shared__ float products[THREADS];
    const unsigned runs = static_cast<unsigned>((D + WIDTH - 1) / WIDTH), rows = THREADS / runs, run = threadIdx.x % runs;
    const int64_t first = int64_t{blockIdx.x} * rows, row = first + threadIdx.x / runs, d = run * WIDTH;
    float product = 0.0f;
    if (threadIdx.x < rows * runs && row < B * H * S) {
        float left[WIDTH], right[WIDTH];
        load_some(left, dy + row * D + d, D - d, is_wide(D));
        load_some(right, y + row * D + d, D - d, is_wide(D));
        for (int i = 0; i < WIDTH; ++i) product += left[i] * right[i];
    }
    products[threadIdx.x] = product;
    __syncthreads();
    const int64_t own = first + threadIdx.x, position = own / H;
    if (threadIdx.x >= rows || own >= B * H * S) return;
    float sum = 0.0f;
    for (unsigned i = 0; i < runs; ++i) sum += products[threadIdx.x * runs + i];
    delta[(position / S * H + own % H) * S + position % S] = sum;
}

constexpr int WAVES = 4, WAVE_CHANNELS = 128 / WAVE;

KERNEL(WAVES * WAVE) attention_decode(act* y, act* keys, act* values, const act* qkv, const int32_t* positions,
                                      int64_t B, int64_t H, int64_t D, int64_t T) {
    __shared__ float shared_weights[WAVES][WAVE];
    const int lane = threadIdx.x % WAVE, wave = threadIdx.x / WAVE;
    const int64_t head = int64_t{blockIdx.x} * WAVES + wave, b = head / H, h = head % H;
    if (head >= B * H) return;
    const int64_t length = positions[b] + 1;
    const act* query = qkv + (b * 3 * H + h) * D;
    act *cached_keys = keys + head * T * D, *cached_values = values + head * T * D;
    float *weights = shared_weights[wave], scale = 1.0f / sqrtf(static_cast<float>(D));
    for (int64_t d = lane; d < D; d += WAVE) {
        cached_keys[(length - 1) * D + d] = query[H * D + d];
        cached_values[(length - 1) * D + d] = query[2 * H * D + d];
    }
    wave_barrier();
    float maximum = MASKED, sum = 0.0f, mixed[WAVE_CHANNELS] = {};
    for (int64_t first = 0; first < length; first += WAVE) {
        const int64_t count = length - first < WAVE ? length - first : WAVE;
        float score = MASKED;
        if (lane < count) {
            score = 0.0f;
            for (int64_t d = 0; d < D; ++d) score += widen(query[d]) * widen(cached_keys[(first + lane) * D + d]);
            score *= scale;
        }
        const float raised = fmaxf(maximum, wave_maximum(score)), shrink = exp_of(maximum - raised);
        weights[lane] = lane < count ? exp_of(score - raised) : 0.0f;
        sum = sum * shrink + wave_sum(weights[lane]);
        wave_barrier();
        for (int c = 0; c < WAVE_CHANNELS; ++c) {
            mixed[c] *= shrink;
            if (lane + c * WAVE < D)
                for (int64_t j = 0; j < count; ++j)
                    mixed[c] += weights[j] * widen(cached_values[(first + j) * D + lane + c * WAVE]);
        }
        wave_barrier();
        maximum = raised;
    }
    for (int c = 0; c < WAVE_CHANNELS; ++c)
        if (lane + c * WAVE < D) narrow(y[head * D + lane + c * WAVE], mixed[c] / sum);
}

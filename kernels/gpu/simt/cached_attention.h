// One query's attention to a head's cached keys and values by a block of BLOCK_THREADS.
#pragma once
#include "gpu/simt/vector_io.h"
#include "formulas.h"

constexpr float MASKED = -1e30f;  // the score of a key that a query does not see
constexpr int LEAST_LANES = 4;

// Each team's greatest score, sum of exponentials, weighted sum of values, and factor of these sums in the whole.
template <int BLOCK_THREADS>
struct Softmaxes {
    float maximum[BLOCK_THREADS / LEAST_LANES], sum[BLOCK_THREADS / LEAST_LANES], out[BLOCK_THREADS * WIDTH];
    float factor[BLOCK_THREADS / LEAST_LANES];
};

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

// A team of LANES lanes has a key's channels, WIDTH each, and visits every TEAMS-th key. At the end the teams' softmaxes
// become one, in a fixed order. A lane whose channels are beyond D has a query of zeros, and its sums are not read.
template <int LANES, bool WIDE, int BLOCK_THREADS>
DEVICE void decode(Softmaxes<BLOCK_THREADS>& of, act* y, const act* query, const act* keys, const act* values,
                   int64_t length, int64_t D) {
    constexpr int TEAMS = BLOCK_THREADS / LANES,
                  TOGETHER = 4;  // keys that a team visits in a turn
    const int team = threadIdx.x / LANES, channel = threadIdx.x % LANES * WIDTH;
    const float scale = 1.0f / sqrtf(static_cast<float>(D));
    float own_query[WIDTH], maximum = MASKED, sum = 0.0f, out[WIDTH] = {};
    load_some(own_query, query + channel, D - channel, WIDE);
    for (int64_t first = 0; first < length; first += TEAMS * TOGETHER) {  // all lanes, because they exchange sums
        float score[TOGETHER], raised = maximum;
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u) {
            const int64_t j = first + u * TEAMS + team;
            float key[WIDTH];
            load_cached<WIDE>(key, keys, j, length, channel, D);
            score[u] = 0.0f;
            for (int i = 0; i < WIDTH; ++i) score[u] += own_query[i] * key[i];
            for (int mask = LANES / 2; mask > 0; mask /= 2) score[u] += wave_exchange(score[u], mask);
            score[u] = j < length ? score[u] * scale : MASKED;
            raised = fmaxf(raised, score[u]);
        }
        const float shrink = exp_of(maximum - raised);
        sum *= shrink;
        for (int i = 0; i < WIDTH; ++i) out[i] *= shrink;
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u) {
            const int64_t j = first + u * TEAMS + team;
            const float probability = j < length ? exp_of(score[u] - raised) : 0.0f;
            float value[WIDTH];
            load_cached<WIDE>(value, values, j, length, channel, D);
            sum += probability;
            for (int i = 0; i < WIDTH; ++i) out[i] += probability * value[i];
        }
        maximum = raised;
    }
    of.maximum[team] = maximum;
    of.sum[team] = sum;
    for (int i = 0; i < WIDTH; ++i) of.out[threadIdx.x * WIDTH + i] = out[i];
    __syncthreads();
    float greatest = MASKED, total = 0.0f, result = 0.0f;
    for (int other = 0; other < TEAMS; ++other) greatest = fmaxf(greatest, of.maximum[other]);
    if (threadIdx.x < TEAMS) of.factor[threadIdx.x] = exp_of(of.maximum[threadIdx.x] - greatest);
    __syncthreads();
    if (threadIdx.x >= D) return;
    for (int other = 0; other < TEAMS; ++other) {
        total += of.sum[other] * of.factor[other];
        result += of.out[other * LANES * WIDTH + threadIdx.x] * of.factor[other];
    }
    narrow(y[threadIdx.x], result / total);
}

template <bool WIDE, int BLOCK_THREADS>
DEVICE void decode(Softmaxes<BLOCK_THREADS>& of, act* y, const act* query, const act* keys, const act* values,
                   int64_t length, int64_t D) {
    if (D <= LEAST_LANES * WIDTH)
        decode<LEAST_LANES, WIDE>(of, y, query, keys, values, length, D);
    else if (D <= 2 * LEAST_LANES * WIDTH)
        decode<2 * LEAST_LANES, WIDE>(of, y, query, keys, values, length, D);
    else
        decode<MOST_CHANNELS / WIDTH, WIDE>(of, y, query, keys, values, length, D);
}

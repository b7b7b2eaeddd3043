// rmsnorm_forward: y = x * rstd * gamma over each row of C; rstd = 1 / sqrt(mean of x^2 + epsilon).
// With a branch, sum = x + branch takes the place of x.
// x, branch, sum, y (N, C) row-major, act; gamma (C), act; rstd (N) f32; sums in f32.
// Grid ceil(N / ROWS): a wave owns a row, and a block has ROWS waves.
// Minimum traffic: 2*N*C*sizeof(act) + 4*N + C*sizeof(act) bytes, with a branch 4*N*C*sizeof(act) for the first term.
// Zhang & Sennrich 2019, arXiv:1910.07467.
//
// rmsnorm_backward: with n = x * rstd and g = dy * gamma, dx = dresidual + rstd * (g - n * mean(g * n)), without
// `dresidual` if that is null.
// The N rows are cut into K equal parts; partials[k] (C) holds the sum over part k of dy * n.
// Grid K, a block per part. No two blocks add to the same number, so the order of every sum is fixed without atomics.
// Minimum traffic: 4*N*C*sizeof(act) + 4*N + C*sizeof(act) + 4*K*C bytes.
//
// add_rows: total += sum over k of rows[k]. total (C), rows (K, C) f32. Grid ceil(C / NORM_COLUMNS), a block per
// NORM_COLUMNS channels. Minimum traffic: 4*K*C + 8*C bytes.
//
// head_norm_forward, head_norm_backward: the same norm for each query and key of D channels; formulas and shapes as in
// kernels/cpu/rmsnorm.cpp. Forward: grid ceil(N*G / ROWS), a wave per head. Backward: grid K, a block per part of the
// rows. Minimum traffic: 2*N*G*D*sizeof(act) + 4*N*G and 3*N*G*D*sizeof(act) + 4*N*G + 8*K*D bytes.
#include "gpu/simt/vector_io.h"
#include "gpu/simt/reduce.h"

constexpr int ROWS = THREADS / WAVE;

// One row by one wave: returns rstd. Each lane handles W neighbours of every WAVE * W channels. The row is read twice,
// because the second pass hits the cache. branch, sum: the row's, or null.
template <int W>
DEVICE float normalize_row(act* y, act* sum, const act* x, const act* branch, const act* gamma, int64_t C,
                           float epsilon) {
    const int64_t begin = (threadIdx.x % WAVE) * W;
    float squares = 0.0f, values[W], others[W];

    // mean of the squares, and the residual sum if there is a branch
    for (int64_t c = begin; c < C; c += WAVE * W) {
        load(values, x + c);
        if (branch) {
            load(others, branch + c);
            for (int i = 0; i < W; ++i) values[i] += others[i];
            store(sum + c, values);
            load(values, sum + c);  // as rounded to act, because backward will read it so
        }
        for (int i = 0; i < W; ++i) squares += values[i] * values[i];
    }
    if (branch) x = sum;
    const float r = 1.0f / sqrtf(wave_sum(squares) / C + epsilon);

    // normalize and scale
    for (int64_t c = begin; c < C; c += WAVE * W) {
        load(values, x + c);
        load(others, gamma + c);
        for (int i = 0; i < W; ++i) values[i] *= r * others[i];
        store(y + c, values);
    }
    return r;
}

DEVICE float normalize(act* y, act* sum, const act* x, const act* branch, const act* gamma, int64_t C, float epsilon) {
    return is_wide(C) ? normalize_row<WIDTH>(y, sum, x, branch, gamma, C, epsilon)
                      : normalize_row<1>(y, sum, x, branch, gamma, C, epsilon);
}

// dx = dresidual + rstd * (g - n * mean(g * n)) of one row by one wave, without `dresidual` if that is null. r: its rstd.
template <int W>
DEVICE void differentiate_row(act* dx, const act* dresidual, const act* dy, const act* x, float r, const act* gamma,
                              int64_t C) {
    const int64_t begin = (threadIdx.x % WAVE) * W;
    float product = 0.0f, values[W], gradients[W], scales[W];
    for (int64_t c = begin; c < C; c += WAVE * W) {
        load(values, x + c);
        load(gradients, dy + c);
        load(scales, gamma + c);
        for (int i = 0; i < W; ++i) product += gradients[i] * scales[i] * values[i] * r;
    }
    product = wave_sum(product) / C;
    for (int64_t c = begin; c < C; c += WAVE * W) {
        float sums[W] = {};
        load(values, x + c);
        load(gradients, dy + c);
        load(scales, gamma + c);
        if (dresidual) load(sums, dresidual + c);
        for (int i = 0; i < W; ++i) sums[i] += r * (gradients[i] * scales[i] - values[i] * r * product);
        store(dx + c, sums);
    }
}

DEVICE void differentiate(act* dx, const act* dresidual, const act* dy, const act* x, float r, const act* gamma,
                          int64_t C) {
    if (is_wide(C))
        differentiate_row<WIDTH>(dx, dresidual, dy, x, r, gamma, C);
    else
        differentiate_row<1>(dx, dresidual, dy, x, r, gamma, C);
}

KERNEL(THREADS)
rmsnorm_forward(act* y, float* rstd, act* sum, const act* x, const act* branch, const act* gamma, int64_t N, int64_t C,
                float epsilon) {
    const int64_t n = int64_t{blockIdx.x} * ROWS + threadIdx.x / WAVE, row = n * C;
    if (n >= N) return;
    const float r = branch ? normalize(y + row, sum + row, x + row, branch + row, gamma, C, epsilon)
                           : normalize(y + row, nullptr, x + row, nullptr, gamma, C, epsilon);
    if (threadIdx.x % WAVE == 0) rstd[n] = r;
}

KERNEL(THREADS)
rmsnorm_backward(act* dx, float* partials, const act* dresidual, const act* dy, const act* x, const float* rstd,
                 const act* gamma, int64_t N, int64_t C, int64_t K) {
    const int64_t size = (N + K - 1) / K, begin = blockIdx.x * size, end = begin + size < N ? begin + size : N;
    float* sums = partials + blockIdx.x * C;
    if (begin >= N)
        for (int64_t c = threadIdx.x; c < C; c += THREADS) sums[c] = 0.0f;

    // ROWS rows per turn, a wave each; then a thread per channel adds these rows to the partial sums, while they are
    // still in the cache
    for (int64_t first = begin; first < end; first += ROWS) {
        const int64_t n = first + threadIdx.x / WAVE, last = first + ROWS < end ? first + ROWS : end;
        if (n < end)
            differentiate(dx + n * C, dresidual ? dresidual + n * C : nullptr, dy + n * C, x + n * C, rstd[n], gamma,
                          C);
        for (int64_t c = threadIdx.x; c < C; c += THREADS) {
            float sum = 0.0f;
            for (int64_t row = first; row < last; ++row)
                sum += widen(dy[row * C + c]) * widen(x[row * C + c]) * rstd[row];
            sums[c] = (first == begin ? 0.0f : sums[c]) + sum;
        }
    }
}

KERNEL(THREADS) add_rows(float* total, const float* rows, int64_t C, int64_t K) {
    // GROUPS threads share a channel: each sums every GROUPS-th of the K rows, then one thread adds up the groups
    constexpr int GROUPS = THREADS / NORM_COLUMNS;
    __shared__ float group_sums[GROUPS][NORM_COLUMNS];
    const int column = threadIdx.x % NORM_COLUMNS, group = threadIdx.x / NORM_COLUMNS;
    const int64_t c = int64_t{blockIdx.x} * NORM_COLUMNS + column;
    float sum = 0.0f;
    if (c < C)
        for (int64_t k = group; k < K; k += GROUPS) sum += rows[k * C + c];
    group_sums[group][column] = sum;
    __syncthreads();
    if (group > 0 || c >= C) return;
    sum = 0.0f;
    for (int other = 0; other < GROUPS; ++other) sum += group_sums[other][column];
    total[c] += sum;
}

KERNEL(THREADS)
head_norm_forward(act* y, float* rstd, const act* x, const act* query_gamma, const act* key_gamma, int64_t N, int64_t G,
                  int64_t D, float epsilon, int32_t queries) {
    const int64_t head = int64_t{blockIdx.x} * ROWS + threadIdx.x / WAVE, g = head % G;
    if (head >= N * G) return;
    float r = 1.0f;
    if (g < (queries + G) / 2)
        r = normalize(y + head * D, nullptr, x + head * D, nullptr, g < queries ? query_gamma : key_gamma, D, epsilon);
    else
        for (int64_t d = threadIdx.x % WAVE; d < D; d += WAVE) y[head * D + d] = x[head * D + d];
    if (threadIdx.x % WAVE == 0) rstd[head] = r;
}

KERNEL(THREADS)
head_norm_backward(act* dx, float* partials, const act* dy, const act* x, const float* rstd, const act* query_gamma,
                   const act* key_gamma, int64_t N, int64_t G, int64_t D, int64_t K, int32_t queries) {
    const int64_t size = (N + K - 1) / K, begin = blockIdx.x * size, end = begin + size < N ? begin + size : N;
    const int64_t normalized = (queries + G) / 2;
    for (int64_t head = begin * G + threadIdx.x / WAVE; head < end * G; head += ROWS) {
        const int64_t g = head % G, at = head * D;
        if (g < normalized)
            differentiate(dx + at, nullptr, dy + at, x + at, rstd[head], g < queries ? query_gamma : key_gamma, D);
        else
            for (int64_t d = threadIdx.x % WAVE; d < D; d += WAVE) dx[at + d] = dy[at + d];
    }
    // a thread per channel of a gamma
    for (int64_t c = threadIdx.x; c < 2 * D; c += THREADS) {
        const int64_t d = c % D, first = c < D ? 0 : queries, last = c < D ? queries : normalized;
        float sum = 0.0f;
        for (int64_t n = begin; n < end; ++n)
            for (int64_t head = n * G + first; head < n * G + last; ++head)
                sum += widen(dy[head * D + d]) * widen(x[head * D + d]) * rstd[head];
        partials[blockIdx.x * 2 * D + c] = sum;
    }
}

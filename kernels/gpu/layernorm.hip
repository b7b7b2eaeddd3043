// layernorm_forward: y = (x - mean) * rstd * gamma + beta over each row of C; rstd = 1 / sqrt(variance + epsilon).
// With a branch, sum = x + branch takes the place of x.
// x, branch, sum, y (N, C) row-major, act; gamma, beta (C), act; mean, rstd (N) f32; sums in f32.
// Grid ceil(N / ROWS): a wave owns a row, and a block has ROWS waves.
// Minimum traffic: 2*N*C*sizeof(act) + 8*N + 2*C*sizeof(act) bytes, with a branch 4*N*C*sizeof(act) for the first term.
// Ba, Kiros & Hinton 2016, arXiv:1607.06450.
//
// layernorm_backward: with n = (x - mean) * rstd and g = dy * gamma,
// dx = dresidual + rstd * (g - mean(g) - n * mean(g * n)), without `dresidual` if that is null.
// The N rows are cut into K equal parts; partials[k] (2, C) holds the sums over part k of dy * n and of dy.
// Grid K, a block per part. No two blocks add to the same number, so the order of every sum is fixed without atomics.
// Minimum traffic: 4*N*C*sizeof(act) + 8*N + C*sizeof(act) + 8*K*C bytes.
//
// add_partials: dgamma += sum over k of partials[k, 0]; dbeta += sum over k of partials[k, 1].
// Grid ceil(C / NORM_COLUMNS), a block per NORM_COLUMNS channels. Minimum traffic: 8*K*C + 16*C bytes.
#include "gpu/simt/vector_io.h"
#include "gpu/simt/reduce.h"

constexpr int ROWS = THREADS / WAVE;

// One row by one wave. Each lane handles W neighbours of every WAVE * W channels. The row is read three times, because
// the second and third pass hit the cache.
template <int W>
DEVICE void normalize_row(act* y, float* mean, float* rstd, act* sum, const act* x, const act* branch, const act* gamma,
                          const act* beta, int64_t n, int64_t C, float epsilon) {
    const int64_t begin = (threadIdx.x % WAVE) * W;
    float total = 0.0f, squares = 0.0f, values[W], others[W];
    const act* row = x + n * C;

    // mean, and the residual sum if there is a branch
    for (int64_t c = begin; c < C; c += WAVE * W) {
        load(values, row + c);
        if (branch) {
            load(others, branch + n * C + c);
            for (int i = 0; i < W; ++i) values[i] += others[i];
            store(sum + n * C + c, values);
            load(values, sum + n * C + c);  // as rounded to act, because backward will read it so
        }
        for (int i = 0; i < W; ++i) total += values[i];
    }
    if (branch) row = sum + n * C;
    const float m = wave_sum(total) / C;

    // variance around the mean, which cancels less than E[x^2] - mean^2; then the reciprocal standard deviation
    for (int64_t c = begin; c < C; c += WAVE * W) {
        load(values, row + c);
        for (int i = 0; i < W; ++i) squares += (values[i] - m) * (values[i] - m);
    }
    const float r = 1.0f / sqrtf(wave_sum(squares) / C + epsilon);

    // normalize, scale and shift
    for (int64_t c = begin; c < C; c += WAVE * W) {
        float scales[W];
        load(values, row + c);
        load(scales, gamma + c);
        load(others, beta + c);
        for (int i = 0; i < W; ++i) values[i] = (values[i] - m) * r * scales[i] + others[i];
        store(y + n * C + c, values);
    }
    if (begin == 0) {
        mean[n] = m;
        rstd[n] = r;
    }
}

KERNEL(THREADS)
layernorm_forward(act* y, float* mean, float* rstd, act* sum, const act* x, const act* branch, const act* gamma,
                  const act* beta, int64_t N, int64_t C, float epsilon) {
    const int64_t n = int64_t{blockIdx.x} * ROWS + threadIdx.x / WAVE;
    if (n >= N) return;
    if (is_wide(C))
        normalize_row<WIDTH>(y, mean, rstd, sum, x, branch, gamma, beta, n, C, epsilon);
    else
        normalize_row<1>(y, mean, rstd, sum, x, branch, gamma, beta, n, C, epsilon);
}

// dx of one row by one wave. dx, dresidual, dy, x: the row's first element; m, r: its mean and rstd.
template <int W>
DEVICE void differentiate_row(act* dx, const act* dresidual, const act* dy, const act* x, float m, float r,
                              const act* gamma, int64_t C) {
    const int64_t begin = (threadIdx.x % WAVE) * W;
    float sum = 0.0f, product = 0.0f, values[W], gradients[W], scales[W];

    // mean(g) and mean(g * n)
    for (int64_t c = begin; c < C; c += WAVE * W) {
        load(values, x + c);
        load(gradients, dy + c);
        load(scales, gamma + c);
        for (int i = 0; i < W; ++i) {
            sum += gradients[i] * scales[i];
            product += gradients[i] * scales[i] * (values[i] - m) * r;
        }
    }
    sum = wave_sum(sum) / C;
    product = wave_sum(product) / C;

    for (int64_t c = begin; c < C; c += WAVE * W) {
        float sums[W] = {};
        load(values, x + c);
        load(gradients, dy + c);
        load(scales, gamma + c);
        if (dresidual) load(sums, dresidual + c);
        for (int i = 0; i < W; ++i) sums[i] += r * (gradients[i] * scales[i] - sum - (values[i] - m) * r * product);
        store(dx + c, sums);
    }
}

// Adds rows, which start at dy and x, to the sums of dy * n and of dy over W neighbouring channels.
template <int W>
DEVICE void add_rows(float (&of_gamma)[W], float (&of_beta)[W], const act* dy, const act* x, const float* mean,
                     const float* rstd, int64_t rows, int64_t C) {
#pragma unroll 8
    for (int64_t row = 0; row < rows; ++row) {
        float gradients[W], values[W];
        load(gradients, dy + row * C);
        load(values, x + row * C);
        for (int i = 0; i < W; ++i) {
            of_gamma[i] += gradients[i] * (values[i] - mean[row]) * rstd[row];
            of_beta[i] += gradients[i];
        }
    }
}

// The same for all channels of a row, with the sums in memory: C, then C. is_new: whether these rows are the first.
template <int W>
DEVICE void add_rows_to_memory(float* sums, const act* dy, const act* x, const float* mean, const float* rstd,
                               int64_t rows, int64_t C, bool is_new) {
    for (int64_t c = threadIdx.x * W; c < C; c += THREADS * W) {
        float of_gamma[W] = {}, of_beta[W] = {};
        if (!is_new) {
            load(of_gamma, sums + c);
            load(of_beta, sums + C + c);
        }
        add_rows(of_gamma, of_beta, dy + c, x + c, mean, rstd, rows, C);
        store(sums + c, of_gamma);
        store(sums + C + c, of_beta);
    }
}

KERNEL(THREADS)
layernorm_backward(act* dx, float* partials, const act* dresidual, const act* dy, const act* x, const float* mean,
                   const float* rstd, const act* gamma, int64_t N, int64_t C, int64_t K) {
    constexpr int OWN = 4;  // channels that a thread has registers for the sums of
    const int64_t size = (N + K - 1) / K, begin = blockIdx.x * size, end = begin + size < N ? begin + size : N;
    float* sums = partials + blockIdx.x * 2 * C;
    const bool in_registers = C % OWN == 0 && C <= OWN * THREADS;
    const int64_t own = threadIdx.x * OWN;
    float of_gamma[OWN] = {}, of_beta[OWN] = {};
    if (begin >= N && !in_registers)
        for (int64_t c = threadIdx.x; c < 2 * C; c += THREADS) sums[c] = 0.0f;

    // ROWS rows per turn, a wave each; then each thread adds these rows' channels to the partial sums, while they are
    // still in the cache
    for (int64_t first = begin; first < end; first += ROWS) {
        const int64_t n = first + threadIdx.x / WAVE, rows = end - first < ROWS ? end - first : ROWS, at = first * C;
        if (n < end) {
            const act* added = dresidual ? dresidual + n * C : nullptr;
            if (is_wide(C))
                differentiate_row<WIDTH>(dx + n * C, added, dy + n * C, x + n * C, mean[n], rstd[n], gamma, C);
            else
                differentiate_row<1>(dx + n * C, added, dy + n * C, x + n * C, mean[n], rstd[n], gamma, C);
        }
        if (in_registers) {
            if (own < C) add_rows(of_gamma, of_beta, dy + at + own, x + at + own, mean + first, rstd + first, rows, C);
        } else if (C % 2 == 0) {
            add_rows_to_memory<2>(sums, dy + at, x + at, mean + first, rstd + first, rows, C, first == begin);
        } else {
            add_rows_to_memory<1>(sums, dy + at, x + at, mean + first, rstd + first, rows, C, first == begin);
        }
    }
    if (in_registers && own < C) {
        store(sums + own, of_gamma);
        store(sums + C + own, of_beta);
    }
}

KERNEL(THREADS) add_partials(float* dgamma, float* dbeta, const float* partials, int64_t C, int64_t K) {
    // GROUPS threads share a channel: each sums every GROUPS-th of the K parts, then two threads add up the groups
    constexpr int GROUPS = THREADS / NORM_COLUMNS;
    __shared__ float group_sums[2][GROUPS][NORM_COLUMNS];
    const int column = threadIdx.x % NORM_COLUMNS, group = threadIdx.x / NORM_COLUMNS;
    const int64_t c = int64_t{blockIdx.x} * NORM_COLUMNS + column;
    float sums[2] = {0.0f, 0.0f};  // of gamma's gradient and of beta's
    if (c < C)
        for (int64_t k = group; k < K; k += GROUPS)
            for (int which = 0; which < 2; ++which) sums[which] += partials[(2 * k + which) * C + c];
    for (int which = 0; which < 2; ++which) group_sums[which][group][column] = sums[which];
    __syncthreads();
    if (group >= 2 || c >= C) return;
    float sum = 0.0f;
    for (int other = 0; other < GROUPS; ++other) sum += group_sums[group][other][column];
    float* target = group == 0 ? dgamma : dbeta;
    target[c] += sum;
}

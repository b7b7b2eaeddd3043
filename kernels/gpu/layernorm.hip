// Formulas in kernels/cpu/layernorm.cpp. A wave owns a row; its lanes hold WIDTH neighbours at a time where C allows it.
// layernorm_forward: grid ceil(N / ROWS).
// layernorm_backward: grid K, a block one part of the rows: ROWS rows at a time, a wave each; then a thread a channel adds
// their terms to the partial sums, while the rows are in the cache.
// add_partials: grid ceil(C / COLUMNS), parts split among COLUMN_PARTS groups of threads and then added in order.
#include "platform.h"
#include "reduce.h"
#include "values.h"

constexpr int THREADS = 256, ROWS = THREADS / WAVE, COLUMNS = 8, COLUMN_PARTS = THREADS / COLUMNS;

template <int W>
DEVICE void normalise_row(act* y, float* mean, float* rstd, act* sum, const act* x, const act* branch, const act* gamma,
                          const act* beta, int64_t n, int64_t C, float epsilon) {
    const int64_t begin = (threadIdx.x % WAVE) * W;
    float total = 0.0f, squares = 0.0f, values[W], others[W];
    const act* row = x + n * C;
    for (int64_t c = begin; c < C; c += WAVE * W) {
        load(values, row + c);
        if (branch) {
            load(others, branch + n * C + c);
            for (int i = 0; i < W; ++i) values[i] += others[i];
            store(sum + n * C + c, values);
            load(values, sum + n * C + c);  // as it was rounded
        }
        for (int i = 0; i < W; ++i) total += values[i];
    }
    if (branch) row = sum + n * C;
    const float m = wave_sum(total) / C;
    for (int64_t c = begin; c < C; c += WAVE * W) {
        load(values, row + c);
        for (int i = 0; i < W; ++i) squares += (values[i] - m) * (values[i] - m);
    }
    const float r = 1.0f / sqrtf(wave_sum(squares) / C + epsilon);
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

KERNEL(THREADS) layernorm_forward(act* y, float* mean, float* rstd, act* sum, const act* x, const act* branch, const act* gamma,
                                  const act* beta, int64_t N, int64_t C, float epsilon) {
    const int64_t n = int64_t{blockIdx.x} * ROWS + threadIdx.x / WAVE;
    if (n >= N) return;
    if (is_wide(C))
        normalise_row<WIDTH>(y, mean, rstd, sum, x, branch, gamma, beta, n, C, epsilon);
    else
        normalise_row<1>(y, mean, rstd, sum, x, branch, gamma, beta, n, C, epsilon);
}

template <int W>
DEVICE void differentiate_row(act* dx, const act* dy, const act* x, float m, float r, const act* gamma, int64_t C) {
    const int64_t begin = (threadIdx.x % WAVE) * W;
    float sum = 0.0f, product = 0.0f, values[W], gradients[W], scales[W];
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
        float before[W];
        load(values, x + c);
        load(gradients, dy + c);
        load(scales, gamma + c);
        load(before, dx + c);
        for (int i = 0; i < W; ++i) before[i] += r * (gradients[i] * scales[i] - sum - (values[i] - m) * r * product);
        store(dx + c, before);
    }
}

KERNEL(THREADS) layernorm_backward(act* dx, float* partials, const act* dy, const act* x, const float* mean, const float* rstd,
                                   const act* gamma, int64_t N, int64_t C, int64_t K) {
    const int64_t size = (N + K - 1) / K, begin = blockIdx.x * size, end = begin + size < N ? begin + size : N;
    float* sums = partials + blockIdx.x * 2 * C;
    if (begin >= N)
        for (int64_t c = threadIdx.x; c < 2 * C; c += THREADS) sums[c] = 0.0f;
    for (int64_t first = begin; first < end; first += ROWS) {
        const int64_t n = first + threadIdx.x / WAVE, last = first + ROWS < end ? first + ROWS : end;
        if (n < end) {
            if (is_wide(C))
                differentiate_row<WIDTH>(dx + n * C, dy + n * C, x + n * C, mean[n], rstd[n], gamma, C);
            else
                differentiate_row<1>(dx + n * C, dy + n * C, x + n * C, mean[n], rstd[n], gamma, C);
        }
        for (int64_t c = threadIdx.x; c < C; c += THREADS) {
            float gamma_sum = 0.0f, beta_sum = 0.0f;
            for (int64_t row = first; row < last; ++row) {
                const float gradient = widen(dy[row * C + c]);
                gamma_sum += gradient * (widen(x[row * C + c]) - mean[row]) * rstd[row];
                beta_sum += gradient;
            }
            sums[c] = (first == begin ? 0.0f : sums[c]) + gamma_sum;
            sums[C + c] = (first == begin ? 0.0f : sums[C + c]) + beta_sum;
        }
    }
}

KERNEL(THREADS) add_partials(float* dgamma, float* dbeta, const float* partials, int64_t C, int64_t K) {
    __shared__ float parts[2][COLUMN_PARTS][COLUMNS];
    const int column = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS;
    const int64_t c = int64_t{blockIdx.x} * COLUMNS + column;
    float sums[2] = {0.0f, 0.0f};
    if (c < C)
        for (int64_t k = part; k < K; k += COLUMN_PARTS)
            for (int which = 0; which < 2; ++which) sums[which] += partials[(2 * k + which) * C + c];
    for (int which = 0; which < 2; ++which) parts[which][part][column] = sums[which];
    __syncthreads();
    if (part >= 2 || c >= C) return;
    float sum = 0.0f;
    for (int other = 0; other < COLUMN_PARTS; ++other) sum += parts[part][other][column];
    float* target = part == 0 ? dgamma : dbeta;
    target[c] += sum;
}

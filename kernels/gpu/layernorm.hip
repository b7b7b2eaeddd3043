// layernorm_forward: y = (x - mean) * rstd * gamma + beta, over each row of C. A wave owns a row; grid ceil(N / ROWS).
//
// layernorm_backward (formula in kernels/cpu/layernorm.cpp): the first ceil(N / ROWS) blocks make dx, a wave a row; the others
// make dgamma and dbeta of COLUMNS channels each, rows split among COLUMN_PARTS groups of threads and then added in order.
#include "platform.h"
#include "reduce.h"

constexpr int THREADS = 256, ROWS = THREADS / WAVE, COLUMNS = 32, COLUMN_PARTS = THREADS / COLUMNS;

KERNEL(THREADS) layernorm_forward(float* y, float* mean, float* rstd, const float* x, const float* gamma, const float* beta,
                                  int64_t N, int64_t C, float epsilon) {
    const int lane = threadIdx.x % WAVE;
    const int64_t n = int64_t{blockIdx.x} * ROWS + threadIdx.x / WAVE;
    if (n >= N) return;
    const float* row = x + n * C;
    float sum = 0.0f, squares = 0.0f;
    for (int64_t c = lane; c < C; c += WAVE) sum += row[c];
    const float m = wave_sum(sum) / C;
    for (int64_t c = lane; c < C; c += WAVE) squares += (row[c] - m) * (row[c] - m);
    const float r = 1.0f / sqrtf(wave_sum(squares) / C + epsilon);
    for (int64_t c = lane; c < C; c += WAVE) y[n * C + c] = (row[c] - m) * r * gamma[c] + beta[c];
    if (lane == 0) {
        mean[n] = m;
        rstd[n] = r;
    }
}

KERNEL(THREADS) layernorm_backward(float* dx, float* dgamma, float* dbeta, const float* dy, const float* x, const float* mean,
                                   const float* rstd, const float* gamma, int64_t N, int64_t C) {
    const int64_t row_blocks = (N + ROWS - 1) / ROWS;
    if (blockIdx.x < row_blocks) {
        const int lane = threadIdx.x % WAVE;
        const int64_t n = int64_t{blockIdx.x} * ROWS + threadIdx.x / WAVE;
        if (n >= N) return;
        const float *row = x + n * C, *drow = dy + n * C;
        const float m = mean[n], r = rstd[n];
        float sum = 0.0f, product = 0.0f;
        for (int64_t c = lane; c < C; c += WAVE) {
            const float g = drow[c] * gamma[c];
            sum += g;
            product += g * (row[c] - m) * r;
        }
        sum = wave_sum(sum) / C;
        product = wave_sum(product) / C;
        for (int64_t c = lane; c < C; c += WAVE) dx[n * C + c] += r * (drow[c] * gamma[c] - sum - (row[c] - m) * r * product);
        return;
    }
    __shared__ float parts[2][COLUMN_PARTS][COLUMNS];
    const int column = threadIdx.x % COLUMNS, part = threadIdx.x / COLUMNS;
    const int64_t c = (int64_t{blockIdx.x} - row_blocks) * COLUMNS + column;
    float gamma_sum = 0.0f, beta_sum = 0.0f;
    if (c < C)
        for (int64_t n = part; n < N; n += COLUMN_PARTS) {
            const float d = dy[n * C + c];
            gamma_sum += d * (x[n * C + c] - mean[n]) * rstd[n];
            beta_sum += d;
        }
    parts[0][part][column] = gamma_sum;
    parts[1][part][column] = beta_sum;
    __syncthreads();
    if (part == 0 && c < C) {
        for (int other = 1; other < COLUMN_PARTS; ++other) {
            gamma_sum += parts[0][other][column];
            beta_sum += parts[1][other][column];
        }
        dgamma[c] += gamma_sum;
        dbeta[c] += beta_sum;
    }
}

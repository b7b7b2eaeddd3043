// layernorm_forward: y = (x - mean) * rstd * gamma + beta, over each row of C; rstd = 1 / sqrt(variance + epsilon).
// x, y (N, C) row-major; mean, rstd (N); sums in f32. Minimum traffic: 8*N*C + 8*N + 8*C bytes.
// Ba, Kiros & Hinton 2016, arXiv:1607.06450.
//
// layernorm_backward: with n = (x - mean) * rstd and g = dy * gamma,
//   dx += rstd * (g - mean(g) - n * mean(g * n)),  dgamma += sum over rows of dy * n,  dbeta += sum over rows of dy.
#include "parallel.h"
#include <cmath>

extern "C" void layernorm_forward(float* y, float* mean, float* rstd, const float* x, const float* gamma,
                                  const float* beta, int64_t N, int64_t C, float epsilon) {
    parallel_ranges(N, 16, [=](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const float* row = x + n * C;
            float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < C; ++c) sum += row[c];
            const float m = sum / C;
#pragma omp simd reduction(+ : squares)
            for (int64_t c = 0; c < C; ++c) squares += (row[c] - m) * (row[c] - m);
            const float r = 1.0f / std::sqrt(squares / C + epsilon);
            for (int64_t c = 0; c < C; ++c) y[n * C + c] = (row[c] - m) * r * gamma[c] + beta[c];
            mean[n] = m;
            rstd[n] = r;
        }
    });
}

extern "C" void layernorm_backward(float* dx, float* dgamma, float* dbeta, const float* dy, const float* x,
                                   const float* mean, const float* rstd, const float* gamma, int64_t N, int64_t C) {
    parallel_ranges(N, 16, [=](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const float *row = x + n * C, *drow = dy + n * C;
            const float m = mean[n], r = rstd[n];
            float sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
            for (int64_t c = 0; c < C; ++c) {
                const float g = drow[c] * gamma[c];
                sum += g;
                product += g * (row[c] - m) * r;
            }
            sum /= C;
            product /= C;
            for (int64_t c = 0; c < C; ++c)
                dx[n * C + c] += r * (drow[c] * gamma[c] - sum - (row[c] - m) * r * product);
        }
    });
    parallel_ranges(C, 16, [=](int64_t begin, int64_t end) {
        for (int64_t n = 0; n < N; ++n) {
            const float *row = x + n * C, *drow = dy + n * C;
            const float m = mean[n], r = rstd[n];
            for (int64_t c = begin; c < end; ++c) {
                dgamma[c] += drow[c] * (row[c] - m) * r;
                dbeta[c] += drow[c];
            }
        }
    });
}

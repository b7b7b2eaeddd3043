// layernorm_forward: y = (x - mean) * rstd * gamma + beta, over each row of C; rstd = 1 / sqrt(variance + epsilon).
// With a branch, of sum = x + branch instead of x. x, branch, sum, y (N, C) row-major; mean, rstd (N); sums in f32.
// Minimum traffic: 8*N*C + 8*N + 8*C bytes, with a branch 16*N*C. Ba, Kiros & Hinton 2016, arXiv:1607.06450.
//
// layernorm_backward: with n = (x - mean) * rstd and g = dy * gamma, dx += rstd * (g - mean(g) - n * mean(g * n)).
// The rows are cut into K equal parts; partials[k] = the sums over part k of dy * n and of dy.
// add_partials: dgamma += sum over k of partials[k, 0], dbeta += sum of partials[k, 1].
#include "act.h"
#include "parallel.h"
#include "convert.h"
#include <vector>
#include <cmath>

extern "C" void layernorm_forward(act* y, float* mean, float* rstd, act* sum, const act* x, const act* branch,
                                  const act* gamma, const act* beta, int64_t N, int64_t C, float epsilon) {
    parallel_ranges(N, worth_a_thread(8 * C), [=](int64_t begin, int64_t end) {
        std::vector<float> values(C);
        for (int64_t n = begin; n < end; ++n) {
            const act* row = x + n * C;
            if (branch) {
                for (int64_t c = 0; c < C; ++c) values[c] = static_cast<float>(row[c]) + branch[n * C + c];
                store(sum + n * C, values.data(), C);
                row = sum + n * C;
            }
            float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
            for (int64_t c = 0; c < C; ++c) total += row[c];
            const float m = total / C;
#pragma omp simd reduction(+ : squares)
            for (int64_t c = 0; c < C; ++c) squares += (row[c] - m) * (row[c] - m);
            const float r = 1.0f / std::sqrt(squares / C + epsilon);
            for (int64_t c = 0; c < C; ++c) values[c] = (row[c] - m) * r * gamma[c] + beta[c];
            store(y + n * C, values.data(), C);
            mean[n] = m;
            rstd[n] = r;
        }
    });
}

extern "C" void layernorm_backward(act* dx, float* partials, const act* dy, const act* x, const float* mean,
                                   const float* rstd, const act* gamma, int64_t N, int64_t C, int64_t K) {
    const int64_t size = (N + K - 1) / K;
    parallel_ranges(K, worth_a_thread(8 * size * C), [=](int64_t begin, int64_t end) {
        std::vector<float> values(C);
        for (int64_t k = begin; k < end; ++k) {
            float *gamma_sums = partials + 2 * k * C, *beta_sums = gamma_sums + C;
            std::fill_n(gamma_sums, 2 * C, 0.0f);
            for (int64_t n = k * size; n < std::min(N, (k + 1) * size); ++n) {
                const act *row = x + n * C, *drow = dy + n * C;
                const float m = mean[n], r = rstd[n];
                float sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
                for (int64_t c = 0; c < C; ++c) {
                    const float normalised = (row[c] - m) * r, d = drow[c], g = d * gamma[c];
                    sum += g;
                    product += g * normalised;
                    gamma_sums[c] += d * normalised;
                    beta_sums[c] += d;
                }
                sum /= C;
                product /= C;
                const act* before = dx + n * C;
                for (int64_t c = 0; c < C; ++c)
                    values[c] = before[c] + r * (static_cast<float>(drow[c]) * gamma[c] - sum - (row[c] - m) * r * product);
                store(dx + n * C, values.data(), C);
            }
        }
    });
}

extern "C" void add_partials(float* dgamma, float* dbeta, const float* partials, int64_t C, int64_t K) {
    for (int64_t k = 0; k < K; ++k)
        for (int64_t c = 0; c < C; ++c) {
            dgamma[c] += partials[2 * k * C + c];
            dbeta[c] += partials[(2 * k + 1) * C + c];
        }
}

// layernorm_forward: y = (x - mean) * rstd * gamma + beta, over each row of C; rstd = 1 / sqrt(variance + epsilon).
// With a branch, of sum = x + branch instead of x. x, branch, sum, y (N, C) row-major; mean, rstd (N); sums in f32.
// Minimum traffic: 8*N*C + 8*N + 8*C bytes, with a branch 16*N*C. Ba, Kiros & Hinton 2016, arXiv:1607.06450.
//
// layernorm_backward: with n = (x - mean) * rstd and g = dy * gamma, dx += rstd * (g - mean(g) - n * mean(g * n)).
// The rows are cut into K equal parts; partials[k] = the sums over part k of dy * n and of dy.
// add_partials: dgamma += sum over k of partials[k, 0], dbeta += sum of partials[k, 1].
#include "cpu/runtime/call.h"
#include "cpu/select/act.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/convert.h"
#include "cpu/simd/vector.h"
#include <cmath>
#include <memory>

// Some rows of C floats, a thread's own.
class Rows {
   public:
    Rows(int64_t C, int count) : size(padded(C)), memory(new float[size * count]) {}
    float* operator[](int64_t row) const { return memory.get() + row * size; }

   private:
    int64_t size;
    std::unique_ptr<float[]> memory;
};

extern "C" void layernorm_forward(act* y, float* mean, float* rstd, act* sum, const act* x, const act* branch,
                                  const act* gamma, const act* beta, int64_t N, int64_t C, float epsilon) {
    parallel_ranges(N, worth_a_thread(8 * C), [=](int64_t begin, int64_t end) {
        const Rows rows(C, 4);
        float *const row = rows[0], *const added = rows[1], *const g = rows[2], *const b = rows[3];
        load(g, gamma, C);
        load(b, beta, C);
        for (int64_t n = begin; n < end; ++n) {
            load(row, x + n * C, C);
            if (branch) {
                load(added, branch + n * C, C);
                for (int64_t c = 0; c < C; ++c) row[c] += added[c];
                store(sum + n * C, row, C);
                load(row, sum + n * C, C);  // as rounded
            }
            float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
            for (int64_t c = 0; c < C; ++c) total += row[c];
            const float m = total / C;
#pragma omp simd reduction(+ : squares)
            for (int64_t c = 0; c < C; ++c) squares += (row[c] - m) * (row[c] - m);
            const float r = 1.0f / std::sqrt(squares / C + epsilon);
#pragma omp simd
            for (int64_t c = 0; c < C; ++c) row[c] = (row[c] - m) * r * g[c] + b[c];
            store(y + n * C, row, C);
            mean[n] = m;
            rstd[n] = r;
        }
    });
}

extern "C" void layernorm_backward(act* dx, float* partials, const act* dy, const act* x, const float* mean,
                                   const float* rstd, const act* gamma, int64_t N, int64_t C, int64_t K) {
    const int64_t size = (N + K - 1) / K;
    parallel_ranges(K, worth_a_thread(8 * size * C), [=](int64_t begin, int64_t end) {
        const Rows rows(C, 4);
        float *const row = rows[0], *const drow = rows[1], *const before = rows[2], *const weights = rows[3];
        load(weights, gamma, C);
        for (int64_t k = begin; k < end; ++k) {
            float *gamma_sums = partials + 2 * k * C, *beta_sums = gamma_sums + C;
            std::fill_n(gamma_sums, 2 * C, 0.0f);
            for (int64_t n = k * size; n < std::min(N, (k + 1) * size); ++n) {
                load(row, x + n * C, C);
                load(drow, dy + n * C, C);
                load(before, dx + n * C, C);
                const float m = mean[n], r = rstd[n];
                float sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
                for (int64_t c = 0; c < C; ++c) {
                    row[c] = (row[c] - m) * r;  // normalised
                    gamma_sums[c] += drow[c] * row[c];
                    beta_sums[c] += drow[c];
                    drow[c] *= weights[c];
                    sum += drow[c];
                    product += drow[c] * row[c];
                }
                sum /= C;
                product /= C;
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) before[c] += r * (drow[c] - sum - row[c] * product);
                store(dx + n * C, before, C);
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

CALLABLE(layernorm_forward)
CALLABLE(layernorm_backward)
CALLABLE(add_partials)

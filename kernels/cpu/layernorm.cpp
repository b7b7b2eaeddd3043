// layernorm_forward: y = (x - mean) * rstd * gamma + beta over each row of C; rstd = 1 / sqrt(variance + epsilon).
//   With a branch, sum = x + branch is stored and takes the place of x. Without one, branch and sum are null.
//   x, branch, sum, y (N, C) row-major, act; gamma, beta (C), act; mean, rstd (N) f32; sums in f32.
//   Minimum traffic: 2*N*C*sizeof(act) + 8*N + 2*C*sizeof(act) bytes; with a branch, the first term is 4*N*C*sizeof(act).
//   Ba, Kiros & Hinton 2016, arXiv:1607.06450.
//
// layernorm_backward: with n = (x - mean) * rstd, the normalized row, and g = dy * gamma,
//     dx = dresidual + rstd * (g - average(g) - n * average(g * n)), averages over C; without `dresidual` if that is null.
//   The N rows are cut into K equal slices. partials (K, 2, C) f32: of each slice, the sums of dy * n and of dy.
//   Minimum traffic: 4*N*C*sizeof(act) + 8*N + C*sizeof(act) + 8*K*C bytes.
//
// add_partials: dgamma += sum over k of partials[k,0], dbeta += sum over k of partials[k,1]. dgamma, dbeta (C) f32.
//   The order of these sums depends on K alone, so results do not depend on the number of threads.
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/act.h"
#include "cpu/select/convert.h"
#include "cpu/simd/sums.h"
#include <cmath>
#include <memory>

// Room for `count` rows of C floats, a thread's own: kernels load a row of activations as f32, compute, and store it.
class RowBuffers {
   public:
    RowBuffers(int64_t C, int count) : size(padded(C)), memory(new float[size * count]) {}
    float* operator[](int64_t index) const { return memory.get() + index * size; }

   private:
    int64_t size;
    std::unique_ptr<float[]> memory;
};

extern "C" void layernorm_forward(act* y, float* mean, float* rstd, act* sum, const act* x, const act* branch,
                                  const act* gamma, const act* beta, int64_t N, int64_t C, float epsilon) {
    parallel_ranges(N, worth_a_thread(8 * C), [=](int64_t begin, int64_t end) {
        const RowBuffers buffers(C, 4);
        float* const row = buffers[0];
        float* const branch_row = buffers[1];
        float* const scale = buffers[2];
        float* const shift = buffers[3];
        load(scale, gamma, C);
        load(shift, beta, C);
        for (int64_t n = begin; n < end; ++n) {
            load(row, x + n * C, C);
            if (branch) {
                load(branch_row, branch + n * C, C);
                for (int64_t c = 0; c < C; ++c) row[c] += branch_row[c];
                store(sum + n * C, row, C);
                load(row, sum + n * C, C);  // as rounded to act, because the backward pass reads `sum`
            }

            const float row_mean = sum_of(C, [=](int64_t c) { return vector_at(row + c); }) / C;

            // the variance, in a second pass, because a sum of x^2 minus mean^2 would cancel
            const float squares = sum_of(C, [=](int64_t c) {
                const Vector centered = vector_at(row + c) - row_mean;
                return centered * centered;
            });
            const float row_rstd = 1.0f / std::sqrt(squares / C + epsilon);

            // normalize, scale and shift
#pragma omp simd
            for (int64_t c = 0; c < C; ++c) row[c] = (row[c] - row_mean) * row_rstd * scale[c] + shift[c];
            store(y + n * C, row, C);

            // the backward pass needs both
            mean[n] = row_mean;
            rstd[n] = row_rstd;
        }
    });
}

extern "C" void layernorm_backward(act* dx, float* partials, const act* dresidual, const act* dy, const act* x,
                                   const float* mean, const float* rstd, const act* gamma, int64_t N, int64_t C,
                                   int64_t K) {
    const int64_t slice_rows = (N + K - 1) / K;
    parallel_ranges(K, worth_a_thread(8 * slice_rows * C), [=](int64_t begin, int64_t end) {
        const RowBuffers buffers(C, 4);
        float* const row = buffers[0];
        float* const drow = buffers[1];
        float* const dx_row = buffers[2];
        float* const scale = buffers[3];
        load(scale, gamma, C);
        for (int64_t k = begin; k < end; ++k) {
            float* const gamma_sums = partials + 2 * k * C;
            float* const beta_sums = gamma_sums + C;
            std::fill_n(gamma_sums, 2 * C, 0.0f);
            for (int64_t n = k * slice_rows; n < std::min(N, (k + 1) * slice_rows); ++n) {
                load(row, x + n * C, C);
                load(drow, dy + n * C, C);
                if (dresidual)
                    load(dx_row, dresidual + n * C, C);
                else
                    std::fill_n(dx_row, C, 0.0f);
                const float row_mean = mean[n];
                const float row_rstd = rstd[n];

                // n into row, g into drow, and this row's share of dgamma and dbeta
#pragma omp simd
                for (int64_t c = 0; c < C; ++c) {
                    row[c] = (row[c] - row_mean) * row_rstd;
                    gamma_sums[c] += drow[c] * row[c];
                    beta_sums[c] += drow[c];
                    drow[c] *= scale[c];
                }
                const float average_g = sum_of(C, [=](int64_t c) { return vector_at(drow + c); }) / C;
                const float average_gn = dot(drow, row, C) / C;

#pragma omp simd
                for (int64_t c = 0; c < C; ++c) dx_row[c] += row_rstd * (drow[c] - average_g - row[c] * average_gn);
                store(dx + n * C, dx_row, C);
            }
        }
    });
}

extern "C" void add_partials(float* dgamma, float* dbeta, const float* partials, int64_t C, int64_t K) {
    for (int64_t k = 0; k < K; ++k) {
        const float* const gamma_sums = partials + 2 * k * C;
        const float* const beta_sums = gamma_sums + C;
        for (int64_t c = 0; c < C; ++c) {
            dgamma[c] += gamma_sums[c];
            dbeta[c] += beta_sums[c];
        }
    }
}

CALLABLE(layernorm_forward)
CALLABLE(layernorm_backward)
CALLABLE(add_partials)

// rmsnorm_forward: y = x * rstd * gamma over each row of C; rstd = 1 / sqrt(average of x^2 + epsilon).
//   With a branch, sum = x + branch is stored and takes the place of x. Without one, branch and sum are null.
//   x, branch, sum, y (N, C) row-major, act; gamma (C), act; rstd (N) f32; sums in f32.
//   Minimum traffic: 2*N*C*sizeof(act) + 4*N + C*sizeof(act) bytes; with a branch, the first term is 4*N*C*sizeof(act).
//   Zhang & Sennrich 2019, arXiv:1910.07467.
//
// rmsnorm_backward: with n = x * rstd, the normalized row, and g = dy * gamma,
//     dx = dresidual + rstd * (g - n * average(g * n)), without `dresidual` if that is null.
//   The N rows are cut into K equal slices. partials (K, C) f32: of each slice, the sum of dy * n.
//   Minimum traffic: 4*N*C*sizeof(act) + 4*N + C*sizeof(act) + 4*K*C bytes.
//
// add_rows: total += sum over k of rows[k]. total (C), rows (K, C) f32. The order of the sum depends on K alone.
//
// head_norm_forward: the same norm for each query and key of D channels, epsilon included: y[n,g] = x[n,g] * rstd[n,g] *
//   gamma, with query_gamma for the first `queries` heads of the G and key_gamma for half of the others. The rest are
//   values, which are copied; their rstd is 1. x, y (N, G, D), act; rstd (N, G) f32; query_gamma, key_gamma (D), act.
//   Minimum traffic: 2*N*G*D*sizeof(act) + 4*N*G bytes. Dehghani et al. 2023, arXiv:2302.05442.
//
// head_norm_backward: dx = rstd * (g - n * average(g * n)) for queries and keys, dx = dy for values.
//   partials (K, 2, D) f32: of each slice of rows, the sums of dy * n over its queries and over its keys.
//   Minimum traffic: 3*N*G*D*sizeof(act) + 4*N*G + 8*K*D bytes.
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/convert.h"
#include "cpu/simd/sums.h"
#include <cmath>
#include <vector>

static float rstd_of(const float* row, int64_t C, float epsilon) {
    return 1.0f / std::sqrt(dot(row, row, C) / C + epsilon);
}

// x becomes the normalized row, dy becomes rstd * (g - n * average(g * n)), and dy * n is added to gamma_sums.
static void differentiate_row(float* dy, float* x, float* gamma_sums, const float* gamma, float rstd, int64_t C) {
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
        x[c] *= rstd;
        gamma_sums[c] += dy[c] * x[c];
        dy[c] *= gamma[c];
    }
    const float average = dot(dy, x, C) / C;
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) dy[c] = rstd * (dy[c] - x[c] * average);
}

extern "C" void rmsnorm_forward(act* y, float* rstd, act* sum, const act* x, const act* branch, const act* gamma,
                                int64_t N, int64_t C, float epsilon) {
    parallel_ranges(N, worth_a_thread(6 * C), [=](int64_t begin, int64_t end) {
        std::vector<float> row(padded(C)), branch_row(padded(C)), scale(padded(C));
        load(scale.data(), gamma, C);
        for (int64_t n = begin; n < end; ++n) {
            load(row.data(), x + n * C, C);
            if (branch) {
                load(branch_row.data(), branch + n * C, C);
                for (int64_t c = 0; c < C; ++c) row[c] += branch_row[c];
                store(sum + n * C, row.data(), C);
                load(row.data(), sum + n * C, C);  // as rounded to act, because the backward pass reads `sum`
            }
            rstd[n] = rstd_of(row.data(), C, epsilon);
            const float factor = rstd[n];
#pragma omp simd
            for (int64_t c = 0; c < C; ++c) row[c] *= factor * scale[c];
            store(y + n * C, row.data(), C);
        }
    });
}

extern "C" void rmsnorm_backward(act* dx, float* partials, const act* dresidual, const act* dy, const act* x,
                                 const float* rstd, const act* gamma, int64_t N, int64_t C, int64_t K) {
    const int64_t slice_rows = (N + K - 1) / K;
    parallel_ranges(K, worth_a_thread(8 * slice_rows * C), [=](int64_t begin, int64_t end) {
        std::vector<float> row(padded(C)), drow(padded(C)), dx_row(padded(C)), scale(padded(C));
        load(scale.data(), gamma, C);
        for (int64_t k = begin; k < end; ++k) {
            float* const gamma_sums = partials + k * C;
            std::fill_n(gamma_sums, C, 0.0f);
            for (int64_t n = k * slice_rows; n < std::min(N, (k + 1) * slice_rows); ++n) {
                load(row.data(), x + n * C, C);
                load(drow.data(), dy + n * C, C);
                if (dresidual)
                    load(dx_row.data(), dresidual + n * C, C);
                else
                    std::fill_n(dx_row.data(), C, 0.0f);
                differentiate_row(drow.data(), row.data(), gamma_sums, scale.data(), rstd[n], C);
                for (int64_t c = 0; c < C; ++c) dx_row[c] += drow[c];
                store(dx + n * C, dx_row.data(), C);
            }
        }
    });
}

extern "C" void add_rows(float* total, const float* rows, int64_t C, int64_t K) {
    for (int64_t k = 0; k < K; ++k)
        for (int64_t c = 0; c < C; ++c) total[c] += rows[k * C + c];
}

extern "C" void head_norm_forward(act* y, float* rstd, const act* x, const act* query_gamma, const act* key_gamma,
                                  int64_t N, int64_t G, int64_t D, float epsilon, int32_t queries) {
    const int64_t normalized = (queries + G) / 2;
    parallel_ranges(N, worth_a_thread(6 * G * D), [=](int64_t begin, int64_t end) {
        std::vector<float> row(padded(D)), query_scale(padded(D)), key_scale(padded(D));
        load(query_scale.data(), query_gamma, D);
        load(key_scale.data(), key_gamma, D);
        for (int64_t n = begin; n < end; ++n) {
            for (int64_t g = 0; g < normalized; ++g) {
                const int64_t head = n * G + g;
                const std::vector<float>& scale = g < queries ? query_scale : key_scale;
                load(row.data(), x + head * D, D);
                rstd[head] = rstd_of(row.data(), D, epsilon);
                const float factor = rstd[head];
                for (int64_t d = 0; d < D; ++d) row[d] *= factor * scale[d];
                store(y + head * D, row.data(), D);
            }
            std::fill(rstd + n * G + normalized, rstd + (n + 1) * G, 1.0f);
            std::copy(x + (n * G + normalized) * D, x + (n + 1) * G * D, y + (n * G + normalized) * D);
        }
    });
}

extern "C" void head_norm_backward(act* dx, float* partials, const act* dy, const act* x, const float* rstd,
                                   const act* query_gamma, const act* key_gamma, int64_t N, int64_t G, int64_t D,
                                   int64_t K, int32_t queries) {
    const int64_t slice_rows = (N + K - 1) / K, normalized = (queries + G) / 2;
    parallel_ranges(K, worth_a_thread(8 * slice_rows * G * D), [=](int64_t begin, int64_t end) {
        std::vector<float> row(padded(D)), drow(padded(D)), query_scale(padded(D)), key_scale(padded(D));
        load(query_scale.data(), query_gamma, D);
        load(key_scale.data(), key_gamma, D);
        for (int64_t k = begin; k < end; ++k) {
            float* const query_sums = partials + 2 * k * D;
            std::fill_n(query_sums, 2 * D, 0.0f);
            for (int64_t n = k * slice_rows; n < std::min(N, (k + 1) * slice_rows); ++n) {
                for (int64_t g = 0; g < normalized; ++g) {
                    const int64_t head = n * G + g;
                    const bool query = g < queries;
                    load(row.data(), x + head * D, D);
                    load(drow.data(), dy + head * D, D);
                    differentiate_row(drow.data(), row.data(), query_sums + (query ? 0 : D),
                                      query ? query_scale.data() : key_scale.data(), rstd[head], D);
                    store(dx + head * D, drow.data(), D);
                }
                std::copy(dy + (n * G + normalized) * D, dy + (n + 1) * G * D, dx + (n * G + normalized) * D);
            }
        }
    });
}

CALLABLE(rmsnorm_forward)
CALLABLE(rmsnorm_backward)
CALLABLE(add_rows)
CALLABLE(head_norm_forward)
CALLABLE(head_norm_backward)

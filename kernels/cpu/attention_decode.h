// Attention of one query to cached keys and values.
#pragma once
#include "cpu/select/convert.h"
#include "cpu/select/gemm_tile.h"
#include "formulas.h"
#include <algorithm>
#include <cmath>
#include <limits>

// products[j] = query . row j of keys (rows, D). There is room for whole vectors of products. The sums of LANES rows are
// made together, because the sum of a single vector is a chain of additions.
inline void products_of_rows(float* products, const act* query, const act* keys, int64_t rows, int64_t D) {
    for (int64_t first = 0; first < rows; first += LANES) {
        Vector partial[LANES] = {};
        const auto row = [&](int r) { return keys + std::min(first + r, rows - 1) * D; };
        int64_t d = 0;
        for (; d + GEMV_TERMS <= D; d += GEMV_TERMS)
#pragma GCC unroll 16
            for (int r = 0; r < LANES; ++r) partial[r] = multiply_add(partial[r], query + d, row(r) + d);
        vector_at(products + first) = sums_of_rows(partial);
        for (; d < D; ++d)
            for (int r = 0; r < LANES; ++r) products[first + r] += static_cast<float>(query[d]) * row(r)[d];
    }
}

// scores (length) become exp(scale * (score - maximum)); returns their sum. The rest of the last vector is filled with
// scores of -infinity, because a loop over single scores would take longer than all vectors. exp_f32 clamps its argument,
// so each of them adds e^-87 to the sum. Rounding removes that, because the sum is at least 1: the maximum adds e^0.
inline float softmax_numerators(float* scores, int64_t length, float scale) {
    const int64_t whole = padded(length);
    std::fill(scores + length, scores + whole, -std::numeric_limits<float>::infinity());
    float maximum = scores[0], total = 0;
#pragma omp simd reduction(max : maximum)
    for (int64_t j = 0; j < whole; ++j) maximum = std::max(maximum, scores[j]);
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < whole; ++j) total += scores[j] = exp_f32((scores[j] - maximum) * scale);
    return total;
}

// out (D) = the sum of weights[j] * row j of values (rows, D). Two vectors of sums at once stay in registers.
inline void weighted_sum_of_rows(float* out, const float* weights, const act* values, int64_t rows, int64_t D) {
    int64_t d = 0;
    for (; d + 2 * LANES <= D; d += 2 * LANES) {
        Vector left = {}, right = {};
        for (int64_t j = 0; j < rows; ++j) {
            left += weights[j] * load_vector(values + j * D + d);
            right += weights[j] * load_vector(values + j * D + d + LANES);
        }
        vector_at(out + d) = left;
        vector_at(out + d + LANES) = right;
    }
    std::fill(out + d, out + D, 0.0f);
    for (int64_t j = 0; j < rows; ++j)
        for (int64_t i = d; i < D; ++i) out[i] += weights[j] * values[j * D + i];
}

// y (D) = attention of query (D) to keys and values (length, D); scores: room for `length` in whole vectors, sums for D.
inline void attend_to_cached(act* y, const act* query, const act* keys, const act* values, int64_t length, int64_t D,
                             float* scores, float* sums) {
    products_of_rows(scores, query, keys, length, D);
    const float normalizer = 1.0f / softmax_numerators(scores, length, 1.0f / std::sqrt(static_cast<float>(D)));
    weighted_sum_of_rows(sums, scores, values, length, D);
    for (int64_t d = 0; d < D; ++d) sums[d] *= normalizer;
    store(y, sums, D);
}

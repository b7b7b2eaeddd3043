// Attention of decoding, whose keys and values are cached.
//
// attention_decode: one new token per sequence, at positions[b]. Its key and value are put into row positions[b] % T of
//   the cache (B, H, T, D), and its query attends to the last T tokens, or to all of them if there are fewer.
//
// fill_cache: the first S tokens of K sequences at once. Sequence k has the cache of sequence slots[k], which gets its
//   keys and values as rows 0 to S-1, S <= T. A slot that is none of the B is left out.
#pragma once
#include "cpu/runtime/parallel.h"
#include "cpu/select/convert.h"
#include "cpu/select/gemm_tile.h"
#include "formulas.h"
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

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

// scores (length) become exp(scale * (score - maximum)); returns their sum. Up to whole vectors there is room, for scores
// that add nothing: a loop over the rest of a vector would take longer than the vectors.
inline float exponentials(float* scores, int64_t length, float scale) {
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

extern "C" void attention_decode(act* y, act* keys, act* values, const act* qkv, const int32_t* positions, int64_t B,
                                 int64_t H, int64_t D, int64_t T) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    parallel_ranges(B * H, worth_a_thread(T * D), [=](int64_t begin, int64_t end) {
        std::vector<float> scores(padded(T)), out(D);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, row = positions[b] % T;
            const int64_t length = std::min<int64_t>(positions[b] + 1, T);
            const act* query = qkv + (b * 3 * H + h) * D;
            act* cached_keys = keys + head * T * D;
            act* cached_values = values + head * T * D;
            std::copy_n(query + H * D, D, cached_keys + row * D);
            std::copy_n(query + 2 * H * D, D, cached_values + row * D);
            products_of_rows(scores.data(), query, cached_keys, length, D);
            const float normalizer = 1.0f / exponentials(scores.data(), length, scale);
            weighted_sum_of_rows(out.data(), scores.data(), cached_values, length, D);
            for (float& sum : out) sum *= normalizer;
            store(y + head * D, out.data(), D);
        }
    });
}

extern "C" void fill_cache(act* keys, act* values, const act* qkv, const int32_t* slots, int64_t B, int64_t H,
                           int64_t T, int64_t D, int64_t K, int64_t S) {
    parallel_ranges(K * H, worth_a_thread(S * D), [=](int64_t begin, int64_t end) {
        for (int64_t head = begin; head < end; ++head) {
            const int64_t k = head / H, h = head % H, slot = slots[k];
            if (slot < 0 || slot >= B) continue;
            for (int64_t s = 0; s < S; ++s) {
                const act* const key = qkv + ((k * S + s) * 3 * H + H + h) * D;
                const int64_t row = ((slot * H + h) * T + s) * D;
                std::copy_n(key, D, keys + row);
                std::copy_n(key + H * D, D, values + row);
            }
        }
    });
}

// attention_forward: y[b,i,h] = sum over j <= i of p[i,j] v[b,j,h], p[i] = softmax over j <= i of (q_i . k_j) / sqrt(D).
// qkv (B, S, 3, H, D) row-major: queries, keys, values; y (B, S, H, D); logsumexp (B, H, S) of the scaled scores.
// The S x S matrix is never stored. Minimum traffic: 16*B*S*H*D bytes in f32.
// Vaswani et al. 2017, arXiv:1706.03762; recomputation as in Dao et al. 2022, arXiv:2205.14135.
//
// attention_delta: delta_i = dy_i . y_i.
// attention_backward: p again from logsumexp, then with dp[i,j] = dy_i . v_j:
//   ds = p * (dp - delta);  dq_i = sum ds k_j / sqrt(D);  dk_j = sum ds q_i / sqrt(D);  dv_j = sum p dy_i.
//
// attention_decode: one new token a sequence, at positions[b]; its key and value are put into the cache
// (B, H, T, D), and its query attends to cache rows 0..positions[b].
// A thread owns whole heads, so every sum has one order. It copies a head's rows to the side, padded with zeros to whole
// vectors, keys and values also transposed: all sums then run along vectors, none across their lanes.
#include "../scalar.h"
#include "act.h"
#include "parallel.h"
#include "store.h"
#include "vector.h"
#include <vector>

static int64_t padded(int64_t size) { return (size + LANES - 1) / LANES * LANES; }

// The rows (S, D) of one head, `stride` elements apart in the source, as (S, padded D).
static void copy_rows(std::vector<float>& rows, const act* source, int64_t S, int64_t D, int64_t stride) {
    for (int64_t j = 0; j < S; ++j) std::copy_n(source + j * stride, D, &rows[j * padded(D)]);
}

// The same transposed, as (D, padded S).
static void copy_columns(std::vector<float>& columns, const act* source, int64_t S, int64_t D, int64_t stride) {
    for (int64_t j = 0; j < S; ++j)
        for (int64_t d = 0; d < D; ++d) columns[d * padded(S) + j] = source[j * stride + d];
}

// products[j] = sum over k of factors[k] matrix[k, j], for VECTORS vectors of j side by side: one sum alone would wait for
// each of its additions.
template <int VECTORS>
static void combine_vectors(float* products, const float* factors, const float* matrix, int64_t terms, int64_t row_stride) {
    Vector sums[VECTORS] = {};
    for (int64_t k = 0; k < terms; ++k)
        for (int v = 0; v < VECTORS; ++v) sums[v] += factors[k] * vector_at(matrix + k * row_stride + v * LANES);
    for (int v = 0; v < VECTORS; ++v) vector_at(products + v * LANES) = sums[v];
}

// The same for whole vectors that cover 0 <= j < columns.
static void combine(float* products, const float* factors, const float* matrix, int64_t terms, int64_t columns,
                    int64_t row_stride) {
    int64_t j = 0;
    for (; j + 3 * LANES < columns; j += 4 * LANES) combine_vectors<4>(products + j, factors, matrix + j, terms, row_stride);
    for (; j + LANES < columns; j += 2 * LANES) combine_vectors<2>(products + j, factors, matrix + j, terms, row_stride);
    if (j < columns) combine_vectors<1>(products + j, factors, matrix + j, terms, row_stride);
}

// weights = softmax(scores), in place, over the first `length`; returns the logsumexp.
static float softmax(float* scores, int64_t length) {
    float maximum = -INFINITY, sum = 0;
#pragma omp simd reduction(max : maximum)
    for (int64_t j = 0; j < length; ++j) maximum = scores[j] > maximum ? scores[j] : maximum;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < length; ++j) {
        scores[j] = exp_f32(scores[j] - maximum);
        sum += scores[j];
    }
    for (int64_t j = 0; j < length; ++j) scores[j] /= sum;
    return maximum + std::log(sum);
}

extern "C" void attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H,
                                  int64_t D) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    parallel_ranges(B * H, worth_a_thread(S * S * D), [=](int64_t begin, int64_t end) {
        std::vector<float> keys(D * padded(S)), values(S * padded(D)), query(D), scores(padded(S)), row(padded(D));
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, stride = 3 * H * D;
            const act* queries = qkv + b * S * stride + h * D;
            copy_columns(keys, queries + H * D, S, D, stride);
            copy_rows(values, queries + 2 * H * D, S, D, stride);
            for (int64_t i = 0; i < S; ++i) {
                for (int64_t d = 0; d < D; ++d) query[d] = queries[i * stride + d] * scale;
                combine(scores.data(), query.data(), keys.data(), D, i + 1, padded(S));
                logsumexp[head * S + i] = softmax(scores.data(), i + 1);
                combine(row.data(), scores.data(), values.data(), i + 1, D, padded(D));
                store(y + ((b * S + i) * H + h) * D, row.data(), D);
            }
        }
    });
}

extern "C" void attention_delta(float* delta, const act* dy, const act* y, int64_t B, int64_t H, int64_t S, int64_t D) {
    parallel_ranges(B * S, worth_a_thread(H * D), [=](int64_t begin, int64_t end) {
        for (int64_t position = begin; position < end; ++position)
            for (int64_t h = 0; h < H; ++h) {
                const act *dout = dy + (position * H + h) * D, *out = y + (position * H + h) * D;
                float sum = 0;
                for (int64_t d = 0; d < D; ++d) sum += static_cast<float>(dout[d]) * out[d];
                delta[(position / S * H + h) * S + position % S] = sum;
            }
    });
}

extern "C" void attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp,
                                   const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    const int64_t width = padded(D);
    parallel_ranges(B * H, worth_a_thread(S * S * D), [=](int64_t begin, int64_t end) {
        std::vector<float> queries(S * width), keys(S * width), dout(S * width), dkeys(S * width), dvalues(S * width);
        std::vector<float> key_columns(D * padded(S)), value_columns(D * padded(S)), p(padded(S)), ds(padded(S)), dq(width);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, stride = 3 * H * D, offset = b * S * stride + h * D;
            const int64_t position = b * S * H * D + h * D;
            const act* source = qkv + offset;
            copy_rows(queries, source, S, D, stride);
            copy_rows(keys, source + H * D, S, D, stride);
            copy_rows(dout, dy + position, S, D, H * D);
            copy_columns(key_columns, source + H * D, S, D, stride);
            copy_columns(value_columns, source + 2 * H * D, S, D, stride);
            std::fill(dkeys.begin(), dkeys.end(), 0.0f);
            std::fill(dvalues.begin(), dvalues.end(), 0.0f);
            for (int64_t i = 0; i < S; ++i) {
                const float *query = &queries[i * width], *dout_row = &dout[i * width];
                const float normalizer = logsumexp[head * S + i], product = delta[head * S + i];
                combine(p.data(), query, key_columns.data(), D, i + 1, padded(S));
                combine(ds.data(), dout_row, value_columns.data(), D, i + 1, padded(S));
#pragma omp simd
                for (int64_t j = 0; j <= i; ++j) {
                    p[j] = exp_f32(p[j] * scale - normalizer);
                    ds[j] = (ds[j] - product) * p[j] * scale;
                }
                combine(dq.data(), ds.data(), keys.data(), i + 1, D, width);
                store(dqkv + offset + i * stride, dq.data(), D);
                for (int64_t j = 0; j <= i; ++j)
                    for (int64_t d = 0; d < width; d += LANES) {
                        vector_at(&dkeys[j * width + d]) += ds[j] * vector_at(query + d);
                        vector_at(&dvalues[j * width + d]) += p[j] * vector_at(dout_row + d);
                    }
            }
            for (int64_t j = 0; j < S; ++j) {
                store(dqkv + offset + H * D + j * stride, &dkeys[j * width], D);
                store(dqkv + offset + 2 * H * D + j * stride, &dvalues[j * width], D);
            }
        }
    });
}

extern "C" void attention_decode(act* y, act* keys, act* values, const act* qkv, const int32_t* positions,
                                 int64_t B, int64_t H, int64_t D, int64_t T) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    parallel_ranges(B * H, worth_a_thread(T * D), [=](int64_t begin, int64_t end) {
        std::vector<float> scores(T), out(D);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, length = positions[b] + 1;
            const act* query = qkv + (b * 3 * H + h) * D;
            act *cached_keys = keys + head * T * D, *cached_values = values + head * T * D;
            std::copy_n(query + H * D, D, cached_keys + (length - 1) * D);
            std::copy_n(query + 2 * H * D, D, cached_values + (length - 1) * D);
            for (int64_t j = 0; j < length; ++j) {
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t d = 0; d < D; ++d) sum += static_cast<float>(query[d]) * cached_keys[j * D + d];
                scores[j] = sum * scale;
            }
            softmax(scores.data(), length);
            std::fill(out.begin(), out.end(), 0.0f);
            for (int64_t j = 0; j < length; ++j)
                for (int64_t d = 0; d < D; ++d) out[d] += scores[j] * cached_values[j * D + d];
            store(y + head * D, out.data(), D);
        }
    });
}

// attention_forward: y[b,i,h] = sum over j <= i of p[i,j] v[b,j,h], p[i] = softmax over j <= i of (q_i . k_j) / sqrt(D).
// qkv (B, S, 3, H, D) row-major: queries, keys, values; y (B, S, H, D); logsumexp (B, H, S) of the scaled scores.
// The S x S matrix is never stored. Minimum traffic: 16*B*S*H*D bytes in f32.
// Vaswani et al. 2017, arXiv:1706.03762; recomputation as in Dao et al. 2022, arXiv:2205.14135.
//
// attention_backward: p again from logsumexp, then with dp[i,j] = dy_i . v_j and delta_i = dy_i . y_i:
//   ds = p * (dp - delta);  dq_i = sum ds k_j / sqrt(D);  dk_j = sum ds q_i / sqrt(D);  dv_j = sum p dy_i.
//
// attention_decode: one new token a sequence, at positions[b]; its key and value are put into the cache
// (B, H, T, D), and its query attends to cache rows 0..positions[b].
// A thread owns whole heads, so every sum has one order.
#include "../scalar.h"
#include "parallel.h"
#include <vector>

static float dot(const float* a, const float* b, int64_t D) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < D; ++d) sum += a[d] * b[d];
    return sum;
}

static void add_scaled(float* target, float factor, const float* source, int64_t D) {
#pragma omp simd
    for (int64_t d = 0; d < D; ++d) target[d] += factor * source[d];
}

// One query against `length` keys and values that lie `stride` floats apart; returns the logsumexp.
static float attend(float* y, const float* query, const float* keys, const float* values, int64_t length, int64_t stride,
                    int64_t D, float* scores) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    float maximum = -INFINITY, sum = 0;
    for (int64_t j = 0; j < length; ++j) {
        scores[j] = dot(query, keys + j * stride, D) * scale;
        maximum = std::max(maximum, scores[j]);
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < length; ++j) {
        scores[j] = exp_f32(scores[j] - maximum);
        sum += scores[j];
    }
    std::fill(y, y + D, 0.0f);
    for (int64_t j = 0; j < length; ++j) add_scaled(y, scores[j] / sum, values + j * stride, D);
    return maximum + std::log(sum);
}

extern "C" void attention_forward(float* y, float* logsumexp, const float* qkv, int64_t B, int64_t S, int64_t H,
                                  int64_t D) {
    parallel_ranges(B * H, 1, [=](int64_t begin, int64_t end) {
        std::vector<float> scores(S);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, stride = 3 * H * D;
            const float *query = qkv + b * S * stride + h * D, *keys = query + H * D, *values = keys + H * D;
            for (int64_t i = 0; i < S; ++i)
                logsumexp[head * S + i] = attend(y + ((b * S + i) * H + h) * D, query + i * stride, keys, values, i + 1,
                                                 stride, D, scores.data());
        }
    });
}

extern "C" void attention_backward(float* dqkv, const float* dy, const float* y, const float* logsumexp,
                                   const float* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    parallel_ranges(B * H, 1, [=](int64_t begin, int64_t end) {
        std::vector<float> p(S), ds(S);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, stride = 3 * H * D, offset = b * S * stride + h * D;
            const float *query = qkv + offset, *keys = query + H * D, *values = keys + H * D;
            float *dquery = dqkv + offset, *dkeys = dquery + H * D, *dvalues = dkeys + H * D;
            for (int64_t i = 0; i < S; ++i)
                for (float* row : {dquery, dkeys, dvalues}) std::fill(row + i * stride, row + i * stride + D, 0.0f);
            for (int64_t i = 0; i < S; ++i) {
                const int64_t position = ((b * S + i) * H + h) * D;
                const float *dout = dy + position, *q = query + i * stride, delta = dot(dout, y + position, D);
                const float normalizer = logsumexp[head * S + i];
                for (int64_t j = 0; j <= i; ++j) {
                    p[j] = dot(q, keys + j * stride, D) * scale - normalizer;
                    ds[j] = dot(dout, values + j * stride, D) - delta;
                }
#pragma omp simd
                for (int64_t j = 0; j <= i; ++j) {
                    p[j] = exp_f32(p[j]);
                    ds[j] *= p[j] * scale;
                }
                for (int64_t j = 0; j <= i; ++j) {
                    add_scaled(dquery + i * stride, ds[j], keys + j * stride, D);
                    add_scaled(dkeys + j * stride, ds[j], q, D);
                    add_scaled(dvalues + j * stride, p[j], dout, D);
                }
            }
        }
    });
}

extern "C" void attention_decode(float* y, float* keys, float* values, const float* qkv, const int32_t* positions,
                                 int64_t B, int64_t H, int64_t D, int64_t T) {
    parallel_ranges(B * H, 4, [=](int64_t begin, int64_t end) {
        std::vector<float> scores(T);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, position = positions[b];
            const float* query = qkv + (b * 3 * H + h) * D;
            float *cached_keys = keys + head * T * D, *cached_values = values + head * T * D;
            std::copy_n(query + H * D, D, cached_keys + position * D);
            std::copy_n(query + 2 * H * D, D, cached_values + position * D);
            attend(y + head * D, query, cached_keys, cached_values, position + 1, D, D, scores.data());
        }
    });
}

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
// A thread owns whole heads, so every sum has one order. Of a head it takes QUERIES rows at a time against all keys that they
// see: whole products by the tiles of product.h, each row's scores cut off behind its own position.
#include "formulas.h"
#include "cpu/runtime/call.h"
#include "cpu/select/convert.h"
#include "cpu/runtime/parallel.h"
#include "cpu/runtime/scratch.h"
#include "cpu/select/gemm_tile.h"
#include <type_traits>
#include <vector>

constexpr int64_t QUERIES = padded(48, ROWS);
constexpr bool ROUNDS = !std::is_same_v<act, float>;  // else products read the weights where they were made

// B (K, columns) as panels of a head.
struct Panels {
    Word* words;
    int64_t K, columns;

    static int64_t size(int64_t K, int64_t columns) { return panel_size(K) * padded(columns, PANEL) / PANEL; }
    void fill(Matrix b) const { pack_right(words, b, K, columns); }
};

// sums (rows, columns) = a B over the first K terms of B, or += where they go on; a (rows, K).
static void multiply(float* sums, int64_t stride, Word* copy, Matrix a, int64_t rows, int64_t K, const Panels& b,
                     int64_t columns, bool goes_on = false) {
    multiply(pack_left(copy, a, rows, K), b.words, panel_size(b.K), sums, stride, rows, columns, K, goes_on);
}

// Of row r the first seen + r scores become exp(scale * (score - the greatest)), the others 0 up to `end`; totals: their sums;
// logsumexp: of the scaled scores. Rows are `stride` apart, with room for whole vectors.
static void exponentials(float* scores, int64_t stride, int64_t rows, int64_t seen, int64_t end, float scale, float* totals,
                         float* logsumexp) {
    for (int64_t first = 0; first < rows; first += LANES) {
        const int64_t height = std::min<int64_t>(LANES, rows - first);
        Vector greatest[LANES] = {}, sums[LANES] = {};
        for (int64_t i = 0; i < height; ++i) {
            const int64_t count = seen + first + i;
            const float* const row = scores + (first + i) * stride;
            greatest[i] += row[0];
            for (int64_t j = 0; j < count; j += LANES)
                greatest[i] = greater(first_lanes(count - j, vector_at(row + j), greatest[i]), greatest[i]);
        }
        const Vector maxima = maxima_of_rows(greatest);
        for (int64_t i = 0; i < height; ++i) {
            const int64_t count = seen + first + i;
            float* const row = scores + (first + i) * stride;
            const float maximum = maxima[i];
            for (int64_t j = 0; j < count; j += LANES) {
#pragma omp simd
                for (int64_t lane = j; lane < j + LANES; ++lane) row[lane] = exp_f32((row[lane] - maximum) * scale);
                sums[i] += vector_at(row + j) = first_lanes(count - j, vector_at(row + j), Vector{});
            }
            for (int64_t j = padded(count); j < end; j += LANES) vector_at(row + j) = Vector{};
        }
        const Vector all = sums_of_rows(sums);
        for (int64_t i = 0; i < height; ++i) {
            totals[first + i] = all[i];
            logsumexp[first + i] = maxima[i] * scale + std::log(all[i]);
        }
    }
}

extern "C" void attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H,
                                  int64_t D) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    const int64_t stride = 3 * H * D, width = padded(D, PANEL), length = padded(S, PANEL);
    const int64_t copied = left_size(QUERIES, std::max(S, D));
    parallel_ranges(B * H, worth_a_thread(S * S * D), [=](int64_t begin, int64_t end) {
        begin_tiles();
        Pieces pieces(Panels::size(D, S) + Panels::size(S, D) + copied + (ROUNDS ? 2 : 1) * QUERIES * length + QUERIES * width +
                      6 * LINE);
        const Panels keys{pieces.take(Panels::size(D, S)), D, S}, values{pieces.take(Panels::size(S, D)), S, D};
        Word* const copy = pieces.take(copied);
        float *const scores = pieces.take(QUERIES * length), *const sums = pieces.take(QUERIES * width);
        act* const weights = reinterpret_cast<act*>(ROUNDS ? pieces.take(QUERIES * length) : scores);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H;
            const act* queries = qkv + b * S * stride + h * D;
            keys.fill({queries + H * D, 1, stride});
            values.fill({queries + 2 * H * D, stride, 1});
            for (int64_t first = 0; first < S; first += QUERIES) {
                const int64_t last = std::min(S, first + QUERIES), rows = last - first;
                float totals[QUERIES];
                multiply(scores, length, copy, {queries + first * stride, stride, 1}, rows, D, keys, last);
                exponentials(scores, length, rows, first + 1, last, scale, totals, logsumexp + head * S + first);
                for (int64_t r = 0; ROUNDS && r < rows; ++r) store(weights + r * length, scores + r * length, last);
                multiply(sums, width, copy, {weights, length, 1}, rows, last, values, D);
                for (int64_t r = 0; r < rows; ++r) {
                    const float share = 1.0f / totals[r];
                    for (int64_t d = 0; d < D; ++d) sums[r * width + d] *= share;
                    store(y + ((b * S + first + r) * H + h) * D, sums + r * width, D);
                }
            }
        }
    });
}

extern "C" void attention_delta(float* delta, const act* dy, const act* y, int64_t B, int64_t H, int64_t S, int64_t D) {
    parallel_ranges(B * S, worth_a_thread(H * D), [=](int64_t begin, int64_t end) {
        std::vector<float> dout(H * D), out(H * D);
        for (int64_t position = begin; position < end; ++position) {
            load(dout.data(), dy + position * H * D, H * D);
            load(out.data(), y + position * H * D, H * D);
            for (int64_t h = 0; h < H; ++h) {
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t d = h * D; d < (h + 1) * D; ++d) sum += dout[d] * out[d];
                delta[(position / S * H + h) * S + position % S] = sum;
            }
        }
    });
}

extern "C" void attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp,
                                   const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    const int64_t stride = 3 * H * D, width = padded(D, PANEL), length = padded(S, PANEL), all_rows = padded(S, ROWS);
    const int64_t copied = std::max(left_size(QUERIES, std::max(S, D)), left_size(S, QUERIES));
    const int64_t by_channels = Panels::size(D, S), by_rows = Panels::size(S, D), of_block = Panels::size(QUERIES, D);
    parallel_ranges(B * H, worth_a_thread(S * S * D), [=](int64_t begin, int64_t end) {
        begin_tiles();
        Pieces pieces(2 * by_channels + by_rows + 2 * of_block + copied + (ROUNDS ? 4 : 2) * QUERIES * length + QUERIES * width +
                      2 * all_rows * width + 13 * LINE);
        const Panels keys{pieces.take(by_channels), D, S}, values{pieces.take(by_channels), D, S};
        const Panels key_rows{pieces.take(by_rows), S, D};
        Word *const query_words = pieces.take(of_block), *const dout_words = pieces.take(of_block);
        Word* const copy = pieces.take(copied);
        float *const p = pieces.take(QUERIES * length), *const ds = pieces.take(QUERIES * length);
        float *const dqueries = pieces.take(QUERIES * width);
        float *const dkeys = pieces.take(all_rows * width), *const dvalues = pieces.take(all_rows * width);
        act* const weights = reinterpret_cast<act*>(ROUNDS ? pieces.take(QUERIES * length) : p);
        act* const dscores = reinterpret_cast<act*>(ROUNDS ? pieces.take(QUERIES * length) : ds);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, offset = b * S * stride + h * D;
            const act *queries = qkv + offset, *dout = dy + b * S * H * D + h * D;
            keys.fill({queries + H * D, 1, stride});
            values.fill({queries + 2 * H * D, 1, stride});
            key_rows.fill({queries + H * D, stride, 1});
            // downwards: the last rows see all keys, so their sums are the first of every key's
            for (int64_t first = (S - 1) / QUERIES * QUERIES; first >= 0; first -= QUERIES) {
                const int64_t last = std::min(S, first + QUERIES), rows = last - first;
                const Matrix block = {queries + first * stride, stride, 1}, dblock = {dout + first * H * D, H * D, 1};
                multiply(p, length, copy, block, rows, D, keys, last);
                multiply(ds, length, copy, dblock, rows, D, values, last);
                for (int64_t r = 0; r < rows; ++r) {
                    float *const p_row = p + r * length, *const ds_row = ds + r * length;
                    const int64_t at = head * S + first + r, seen = first + r + 1;
                    const float normalizer = logsumexp[at], product = delta[at];
                    for (int64_t j = 0; j < seen; j += LANES) {
#pragma omp simd
                        for (int64_t lane = j; lane < j + LANES; ++lane)
                            p_row[lane] = exp_f32(p_row[lane] * scale - normalizer);
                        Vector &p_some = vector_at(p_row + j), &ds_some = vector_at(ds_row + j);
                        p_some = first_lanes(seen - j, p_some, Vector{});
                        ds_some = first_lanes(seen - j, (ds_some - product) * p_some * scale, Vector{});
                    }
                    for (int64_t j = padded(seen); j < last; j += LANES)
                        vector_at(p_row + j) = vector_at(ds_row + j) = Vector{};
                    if (ROUNDS) {
                        store(weights + r * length, p_row, last);
                        store(dscores + r * length, ds_row, last);
                    }
                }
                multiply(dqueries, width, copy, {dscores, length, 1}, rows, last, key_rows, D);
                for (int64_t r = 0; r < rows; ++r) store(dqkv + offset + (first + r) * stride, dqueries + r * width, D);
                const Panels query_rows{query_words, rows, D}, dout_rows{dout_words, rows, D};
                query_rows.fill(block);
                dout_rows.fill(dblock);
                multiply(dkeys, width, copy, {dscores, 1, length}, last, rows, query_rows, D, last < S);
                multiply(dvalues, width, copy, {weights, 1, length}, last, rows, dout_rows, D, last < S);
            }
            for (int64_t j = 0; j < S; ++j) {
                store(dqkv + offset + H * D + j * stride, dkeys + j * width, D);
                store(dqkv + offset + 2 * H * D + j * stride, dvalues + j * width, D);
            }
        }
    });
}

extern "C" void attention_decode(act* y, act* keys, act* values, const act* qkv, const int32_t* positions,
                                 int64_t B, int64_t H, int64_t D, int64_t T) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    parallel_ranges(B * H, worth_a_thread(T * D), [=](int64_t begin, int64_t end) {
        std::vector<float> scores(padded(T)), out(D);
        float logsumexp;
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
                scores[j] = sum;
            }
            float total;
            exponentials(scores.data(), 0, 1, length, length, scale, &total, &logsumexp);
            std::fill(out.begin(), out.end(), 0.0f);
            for (int64_t j = 0; j < length; ++j)
                for (int64_t d = 0; d < D; ++d) out[d] += scores[j] * cached_values[j * D + d];
            const float share = 1.0f / total;
            for (int64_t d = 0; d < D; ++d) out[d] *= share;
            store(y + head * D, out.data(), D);
        }
    });
}

CALLABLE(attention_forward)
CALLABLE(attention_delta)
CALLABLE(attention_backward)
CALLABLE(attention_decode)

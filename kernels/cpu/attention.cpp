// attention_forward: y[b,i,h] = sum over j <= i of p[i,j] v[b,j,h], where p[i] = softmax over j <= i of
//   (q_i . k_j) / sqrt(D). qkv (B, S, 3, H, D) row-major: queries, keys, values; y (B, S, H, D); act.
//   logsumexp (B, H, S) f32, of the scaled scores. The S x S scores are never stored as a whole.
//   Minimum traffic: 4*B*S*H*D*sizeof(act) + 4*B*H*S bytes.
//   Vaswani et al. 2017, arXiv:1706.03762; recomputation as in Dao et al. 2022, arXiv:2205.14135.
//
// attention_delta: delta[b,h,i] = dy_i . y_i. delta (B, H, S) f32.
//
// attention_backward: recomputes p from logsumexp. With dp[i,j] = dy_i . v_j and ds = p * (dp - delta):
//   dq_i = sum over j of ds[i,j] k_j / sqrt(D);  dk_j = sum over i of ds[i,j] q_i / sqrt(D);
//   dv_j = sum over i of p[i,j] dy_i.            dqkv like qkv, overwritten.
//
// attention_decode: one new token per sequence, at positions[b]. Its key and value are put into row positions[b] % T of
//   the cache (B, H, T, D), and its query attends to the last T tokens, or to all of them if there are fewer.
//
// fill_cache: the first S tokens of K sequences at once. Sequence k has the cache of sequence slots[k], which gets its
//   keys and values as rows 0 to S-1, S <= T. A slot that is none of the B is left out.
//
// A thread owns whole heads, so every sum has one order. Within a head, a query tile of QUERIES rows is multiplied by
// all keys that its last row sees, as a GEMM; each row's scores beyond its own position are then masked.
#include "formulas.h"
#include "cpu/attention_decode.h"
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/runtime/scratch.h"
#include "cpu/select/convert.h"
#include "cpu/select/gemm_tile.h"
#include <type_traits>
#include <vector>

constexpr int64_t QUERIES = padded(48, MR);  // rows of a query tile
// GEMMs read activations: in bf16, scores are rounded into a second buffer; in f32 they are read where they were made.
constexpr bool ROUNDS = !std::is_same_v<act, float>;

// B (K, columns), packed: an operand that several GEMMs of a head read.
struct PackedB {
    PackedWord* words;
    int64_t K, columns;

    PackedB(ScratchArena& arena, int64_t K, int64_t columns)
        : words(arena.take(b_panel_size(K) * padded(columns, NR) / NR)), K(K), columns(columns) {}

    void pack(Matrix b) const { pack_b(words, b, K, columns); }
};

// sums (rows, columns) = a B over the first K terms of B, or += if `accumulate`; a (rows, K).
static void multiply(float* sums, int64_t stride, PackedWord* copy, Matrix a, int64_t rows, int64_t K, const PackedB& b,
                     int64_t columns, bool accumulate = false) {
    multiply(pack_a(copy, a, rows, K), b.words, b_panel_size(b.K), sums, stride, rows, columns, K, accumulate);
}

// The causal softmax before its division: of row r, the first visible + r scores become exp(scale * (score - maximum)),
// the others up to `end` become 0. totals: the rows' sums; logsumexp: of the scaled scores. Rows are `stride` apart,
// with room for whole vectors.
static void exponentials(float* scores, int64_t stride, int64_t rows, int64_t visible, int64_t end, float scale,
                         float* totals, float* logsumexp) {
    for (int64_t first = 0; first < rows; first += LANES) {
        const int64_t height = std::min<int64_t>(LANES, rows - first);
        Vector maxima_of_row[LANES] = {}, sums[LANES] = {};
        for (int64_t i = 0; i < height; ++i) {
            const int64_t count = visible + first + i;
            const float* const row = scores + (first + i) * stride;
            maxima_of_row[i] += row[0];
            for (int64_t j = 0; j < count; j += LANES)
                maxima_of_row[i] =
                    greater(first_lanes(count - j, vector_at(row + j), maxima_of_row[i]), maxima_of_row[i]);
        }
        const Vector maxima = maxima_of_rows(maxima_of_row);
        for (int64_t i = 0; i < height; ++i) {
            const int64_t count = visible + first + i;
            float* const row = scores + (first + i) * stride;
            const float maximum = maxima[i];
            for (int64_t j = 0; j < count; j += LANES) {
#pragma omp simd
                for (int64_t lane = j; lane < j + LANES; ++lane) row[lane] = exp_f32((row[lane] - maximum) * scale);
                sums[i] += vector_at(row + j) = first_lanes(count - j, vector_at(row + j), Vector{});
            }
            for (int64_t j = padded(count); j < end; j += LANES) vector_at(row + j) = Vector{};
        }
        const Vector row_sums = sums_of_rows(sums);
        for (int64_t i = 0; i < height; ++i) {
            totals[first + i] = row_sums[i];
            logsumexp[first + i] = maxima[i] * scale + std::log(row_sums[i]);
        }
    }
}

extern "C" void attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H,
                                  int64_t D) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    const int64_t stride = 3 * H * D, width = padded(D, NR), length = padded(S, NR);
    parallel_ranges(B * H, worth_a_thread(S * S * D), [=](int64_t begin, int64_t end) {
        begin_tiles();
        ScratchArena arena;
        const PackedB keys(arena, D, S);
        const PackedB values(arena, S, D);
        PackedWord* const copy = arena.take(packed_a_size(QUERIES, std::max(S, D)));
        float* const scores = arena.take(QUERIES * length);
        float* const sums = arena.take(QUERIES * width);
        act* const weights = reinterpret_cast<act*>(ROUNDS ? arena.take(QUERIES * length) : scores);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H;
            const act* queries = qkv + b * S * stride + h * D;
            keys.pack({queries + H * D, 1, stride});
            values.pack({queries + 2 * H * D, stride, 1});
            for (int64_t first = 0; first < S; first += QUERIES) {
                const int64_t last = std::min(S, first + QUERIES), rows = last - first;
                float totals[QUERIES];
                multiply(scores, length, copy, {queries + first * stride, stride, 1}, rows, D, keys, last);
                exponentials(scores, length, rows, first + 1, last, scale, totals, logsumexp + head * S + first);
                for (int64_t r = 0; ROUNDS && r < rows; ++r) store(weights + r * length, scores + r * length, last);
                multiply(sums, width, copy, {weights, length, 1}, rows, last, values, D);
                for (int64_t r = 0; r < rows; ++r) {
                    const float normalizer = 1.0f / totals[r];
                    for (int64_t d = 0; d < D; ++d) sums[r * width + d] *= normalizer;
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

// One row of the backward pass: p, given as scores, becomes exp(p * scale - logsumexp), and ds, given as dp, becomes
// (ds - delta) * p * scale; both are 0 from `visible` to `end`.
static void backward_row(float* p, float* ds, int64_t visible, int64_t end, float scale, float logsumexp, float delta) {
    for (int64_t j = 0; j < visible; j += LANES) {
#pragma omp simd
        for (int64_t lane = j; lane < j + LANES; ++lane) p[lane] = exp_f32(p[lane] * scale - logsumexp);
        Vector& p_some = vector_at(p + j);
        Vector& ds_some = vector_at(ds + j);
        p_some = first_lanes(visible - j, p_some, Vector{});
        ds_some = first_lanes(visible - j, (ds_some - delta) * p_some * scale, Vector{});
    }
    for (int64_t j = padded(visible); j < end; j += LANES) vector_at(p + j) = vector_at(ds + j) = Vector{};
}

extern "C" void attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv,
                                   int64_t B, int64_t S, int64_t H, int64_t D) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    const int64_t stride = 3 * H * D, width = padded(D, NR), length = padded(S, NR), all_rows = padded(S, MR);
    parallel_ranges(B * H, worth_a_thread(S * S * D), [=](int64_t begin, int64_t end) {
        begin_tiles();
        ScratchArena arena;
        const PackedB keys(arena, D, S);
        const PackedB values(arena, D, S);
        const PackedB key_rows(arena, S, D);
        PackedB query_rows(arena, QUERIES, D);
        PackedB dout_rows(arena, QUERIES, D);
        PackedWord* const copy =
            arena.take(std::max(packed_a_size(QUERIES, std::max(S, D)), packed_a_size(S, QUERIES)));
        float* const p = arena.take(QUERIES * length);
        float* const ds = arena.take(QUERIES * length);
        float* const dqueries = arena.take(QUERIES * width);
        float* const dkeys = arena.take(all_rows * width);
        float* const dvalues = arena.take(all_rows * width);
        act* const weights = reinterpret_cast<act*>(ROUNDS ? arena.take(QUERIES * length) : p);
        act* const dscores = reinterpret_cast<act*>(ROUNDS ? arena.take(QUERIES * length) : ds);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, offset = b * S * stride + h * D;
            const act* queries = qkv + offset;
            const act* dout = dy + b * S * H * D + h * D;
            keys.pack({queries + H * D, 1, stride});
            values.pack({queries + 2 * H * D, 1, stride});
            key_rows.pack({queries + H * D, stride, 1});
            // from the last query tile to the first: the last one sees all keys, so it is the one that sets the sums of
            // dkeys and dvalues to which the others add
            for (int64_t first = (S - 1) / QUERIES * QUERIES; first >= 0; first -= QUERIES) {
                const int64_t last = std::min(S, first + QUERIES), rows = last - first;
                const Matrix block = {queries + first * stride, stride, 1};
                const Matrix dblock = {dout + first * H * D, H * D, 1};
                multiply(p, length, copy, block, rows, D, keys, last);
                multiply(ds, length, copy, dblock, rows, D, values, last);
                for (int64_t r = 0; r < rows; ++r) {
                    const int64_t index = head * S + first + r;
                    backward_row(p + r * length, ds + r * length, first + r + 1, last, scale, logsumexp[index],
                                 delta[index]);
                    if (ROUNDS) {
                        store(weights + r * length, p + r * length, last);
                        store(dscores + r * length, ds + r * length, last);
                    }
                }
                multiply(dqueries, width, copy, {dscores, length, 1}, rows, last, key_rows, D);
                for (int64_t r = 0; r < rows; ++r) store(dqkv + offset + (first + r) * stride, dqueries + r * width, D);
                query_rows.K = dout_rows.K = rows;
                query_rows.pack(block);
                dout_rows.pack(dblock);
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

extern "C" void attention_decode(act* y, act* keys, act* values, const act* qkv, const int32_t* positions, int64_t B,
                                 int64_t H, int64_t D, int64_t T) {
    parallel_ranges(B * H, worth_a_thread(T * D), [=](int64_t begin, int64_t end) {
        std::vector<float> scores(padded(T)), sums(D);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, first = head * T * D, row = first + positions[b] % T * D;
            const act* query = qkv + (b * 3 * H + h) * D;
            std::copy_n(query + H * D, D, keys + row);
            std::copy_n(query + 2 * H * D, D, values + row);
            attend_to_cached(y + head * D, query, keys + first, values + first, std::min<int64_t>(positions[b] + 1, T),
                             D, scores.data(), sums.data());
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

CALLABLE(attention_forward)
CALLABLE(attention_delta)
CALLABLE(attention_backward)
CALLABLE(attention_decode)
CALLABLE(fill_cache)

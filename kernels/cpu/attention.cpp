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
// A thread owns whole heads, so every sum has one order. Within a head, MR queries are multiplied by all keys that the last
// of them sees, as a GEMM; each row's scores beyond its own position are then masked. The sums over queries of the backward
// pass take a query tile of QUERIES rows at once, because fewer would load and store the sums more often.
#include "cpu/attention_decode.h"
#include "cpu/attention_tile.h"
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/runtime/scratch.h"
#include "cpu/select/convert.h"
#include "cpu/select/gemm_tile.h"
#include "cpu/simd/sums.h"
#include <vector>

constexpr int64_t QUERIES = padded(48, MR);  // rows of a query tile of the backward pass

extern "C" void attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H,
                                  int64_t D) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    const int64_t stride = 3 * H * D, width = padded(D, NR), length = padded(S, NR);
    parallel_ranges(B * H, worth_a_thread(S * S * D), [=](int64_t begin, int64_t end) {
        begin_tiles();
        ScratchArena arena;
        const PackedB keys(arena, D, S);
        const PackedB values(arena, S, D);
        PackedWord* const copy = arena.take(packed_a_size(MR, std::max(S, D)));
        float* const scores = arena.take(MR * length);
        float* const sums = arena.take(MR * width);
        act* const weights = reinterpret_cast<act*>(ROUNDS ? arena.take(MR * length) : scores);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, next = std::min(head + 1, B * H - 1);
            const act* queries = qkv + b * S * stride + h * D;
            const act* next_queries = qkv + next / H * S * stride + next % H * D;
            keys.pack({queries + H * D, 1, stride});
            values.pack({queries + 2 * H * D, stride, 1});
            for (int64_t first = 0; first < S; first += MR) {
                const int64_t last = std::min<int64_t>(S, first + MR), rows = last - first;
                float totals[MR];
                prefetch_rows(next_queries + first * stride, stride, rows, 3, H * D, D);
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
        std::vector<float> dout(H * D + LANES), out(H * D + LANES);  // room for a whole vector at the end
        for (int64_t position = begin; position < end; ++position) {
            load(dout.data(), dy + position * H * D, H * D);
            load(out.data(), y + position * H * D, H * D);
            for (int64_t h = 0; h < H; ++h)
                delta[(position / S * H + h) * S + position % S] = dot(&dout[h * D], &out[h * D], D);
        }
    });
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
        PackedWord* const copy = arena.take(std::max(packed_a_size(MR, std::max(S, D)), packed_a_size(S, QUERIES)));
        float* const p = arena.take(QUERIES * length);
        float* const ds = arena.take(QUERIES * length);
        float* const dqueries = arena.take(MR * width);
        float* const dkeys = arena.take(all_rows * width);
        float* const dvalues = arena.take(all_rows * width);
        act* const weights = reinterpret_cast<act*>(ROUNDS ? arena.take(QUERIES * length) : p);
        act* const dscores = reinterpret_cast<act*>(ROUNDS ? arena.take(QUERIES * length) : ds);
        for (int64_t head = begin; head < end; ++head) {
            const int64_t b = head / H, h = head % H, offset = b * S * stride + h * D,
                          next = std::min(head + 1, B * H - 1);
            const act* queries = qkv + offset;
            const act* dout = dy + b * S * H * D + h * D;
            const act* next_queries = qkv + next / H * S * stride + next % H * D;
            const act* next_dout = dy + next / H * S * H * D + next % H * D;
            keys.pack({queries + H * D, 1, stride});
            values.pack({queries + 2 * H * D, 1, stride});
            key_rows.pack({queries + H * D, stride, 1});
            // from the last query tile to the first: the last one sees all keys, so it is the one that sets the sums of
            // dkeys and dvalues to which the others add
            for (int64_t first = (S - 1) / QUERIES * QUERIES; first >= 0; first -= QUERIES) {
                const int64_t last = std::min(S, first + QUERIES), rows = last - first;
                for (int64_t row = 0; row < rows; row += MR) {
                    const int64_t top = first + row, seen = std::min<int64_t>(last, top + MR), height = seen - top;
                    float* const p_rows = p + row * length;
                    float* const ds_rows = ds + row * length;
                    prefetch_rows(next_queries + top * stride, stride, height, 3, H * D, D);
                    prefetch_rows(next_dout + top * H * D, H * D, height, 1, 0, D);
                    multiply(p_rows, length, copy, {queries + top * stride, stride, 1}, height, D, keys, seen);
                    multiply(ds_rows, length, copy, {dout + top * H * D, H * D, 1}, height, D, values, seen);
                    for (int64_t r = 0; r < height; ++r) {
                        const int64_t index = head * S + top + r;
                        backward_row(p_rows + r * length, ds_rows + r * length, top + r + 1, seen, scale,
                                     logsumexp[index], delta[index]);
                        if (ROUNDS) {
                            store(weights + (row + r) * length, p_rows + r * length, seen);
                            store(dscores + (row + r) * length, ds_rows + r * length, seen);
                        }
                    }
                    multiply(dqueries, width, copy, {dscores + row * length, length, 1}, height, seen, key_rows, D);
                    for (int64_t r = 0; r < height; ++r)
                        store(dqkv + offset + (top + r) * stride, dqueries + r * width, D);
                }
                query_rows.K = dout_rows.K = rows;
                query_rows.pack({queries + first * stride, stride, 1});
                dout_rows.pack({dout + first * H * D, H * D, 1});
                multiply_causal(dkeys, width, copy, dscores, length, first, rows, query_rows, D, last < S);
                multiply_causal(dvalues, width, copy, weights, length, first, rows, dout_rows, D, last < S);
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

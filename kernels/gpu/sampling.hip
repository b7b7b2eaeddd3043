// draw_token: the next token of each of B sequences. p = ++positions[b] is its position, and tokens[b] and
// windows[b, p % T] become the token. The min(p, T) tokens of the window before it are penalised if they are seen again:
//   score = logit > 0 ? logit / penalty : logit * penalty;  weight = exp((score - greatest score) / temperature).
// Drawn from the top_k tokens of the greatest scores, of these from the fewest whose weights reach top_p of their sum,
// and ties go to the lower id. With u = number drawn[b]++ of the stream keys[b] it is the first token, in the order of
// ids, up to which the weights sum to more than u of their sum. Temperature 0 takes the token of the greatest score.
// logits (B, V), act; scores (B, V) f32; tokens, positions, drawn (B) i32; windows (B, T) i32; settings (B, 4) f32;
// keys (B, 4) i32. Sums in f64. Keskar et al. 2019, arXiv:1909.05858; Holtzman et al. 2020, arXiv:1904.09751.
// Grid B, a block per sequence. Minimum traffic: B*V*(sizeof(act) + 4) bytes, without the 4 if no score is changed and the
// greatest is taken.
#include "gpu/simt/token_scores.h"
#include "gpu/simt/top_tokens.h"

// A thread's greatest score, and the first token that has it; V if there is none.
struct Best {
    float score, token;  // exact, because V < 2^24
};

// visit(v, values, count) for the WIDTH tokens from v on, of which `count` are in the vocabulary.
template <class T, class Visit>
DEVICE Best scan(const T* row, int64_t V, const Visit& visit) {
    const bool aligned = is_wide(V);
    Best best = {-1.0f / 0.0f, static_cast<float>(V)};
    for (int64_t v = threadIdx.x * WIDTH; v < V; v += SAMPLING_THREADS * WIDTH) {
        float values[WIDTH];
        load_some(values, row + v, V - v, aligned);
        visit(v, values);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i)
            if (v + i < V && values[i] > best.score) best = {values[i], static_cast<float>(v + i)};
    }
    return best;
}

// The first token with the greatest score; 0 if there is none.
DEVICE int32_t greedy(const Best& best, float greatest, int64_t V) {
    const float none = static_cast<float>(V);
    const float first = -block_maximum<SAMPLING_THREADS>(best.score == greatest ? -best.token : -none);
    return first < none ? static_cast<int32_t>(first) : 0;
}

KERNEL(SAMPLING_THREADS)
draw_token(int32_t* tokens, int32_t* positions, int32_t* windows, int32_t* drawn, float* scores, const act* logits,
           const float* settings, const int32_t* keys, int64_t B, int64_t T, int64_t V) {
    const int64_t b = blockIdx.x, position = positions[b] + 1;
    const act* row = logits + b * V;
    float* row_scores = scores + b * V;
    int32_t* window = windows + b * T;
    const Sampling sampling = sampling_of(settings + 4 * b);
    const bool is_greedy = sampling.temperature == 0.0f, is_plain = sampling.repetition_penalty == 1.0f;
    Best best = scan(row, V, [&](int64_t v, const float(&values)[WIDTH]) {
        if (!is_greedy || !is_plain) store_some(row_scores + v, values, V - v, is_wide(V));
    });
    __syncthreads();
    if (!is_plain) {
        for (int64_t i = threadIdx.x; i < T && i < position; i += SAMPLING_THREADS)
            row_scores[window[i]] = penalized(widen(row[window[i]]), sampling.repetition_penalty);
        __syncthreads();
        best = scan(row_scores, V, [](int64_t, const float(&)[WIDTH]) {});
    }
    const float greatest = block_maximum<SAMPLING_THREADS>(best.score);
    int32_t token;
    if (is_greedy) {
        token = greedy(best, greatest, V);
    } else {
        const uint32_t gap = sizeof(act) == 2 && is_plain ? 1u << 16 : 1u;
        Scores of = {row_scores, V, greatest, sampling.temperature, gap};
        const double uniform = uniform_number(drawn[b], keys + 4 * b);
        const int64_t top_k = static_cast<int64_t>(sampling.top_k);
        __shared__ TopTokens top;
        if (top_k > 0 && top_k < V && top.find(of, best.score, top_k)) {
            token = top.draw(of, static_cast<int>(top_k), sampling.top_p, uniform);
        } else {
            if (top_k > 0 && top_k < V) of.keep(static_cast<double>(top_k), [](uint32_t) { return 1.0f; });
            if (sampling.top_p < 1.0f)
                of.keep(sampling.top_p * of.sum_of_weights(), [&of](uint32_t key) { return of.weight(key); });
            token = draw_from_all(of, uniform);
        }
    }
    if (threadIdx.x == 0) {
        tokens[b] = token;
        window[position % T] = token;
        positions[b] = static_cast<int32_t>(position);
        ++drawn[b];
    }
}

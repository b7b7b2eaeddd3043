// draw_token: the next token of each of B sequences. p = ++positions[b] is its position, and tokens[b] and
// windows[b, p % T] become the token. The min(p, T) tokens of the window before it are penalised if they are seen again:
//   score = logit > 0 ? logit / penalty : logit * penalty;  weight = exp((score - greatest score) / temperature).
// Drawn from the top_k tokens of the greatest scores, of these from the fewest whose weights reach top_p of their sum,
// and ties go to the lower id. With u = number drawn[b]++ of the stream keys[b] it is the first token, in the order of
// ids, up to which the weights sum to more than u of their sum. Temperature 0 takes the token of the greatest score.
// If a logit is NaN or +inf, it is any token.
// logits (B, V), act; scores (B, V) f32; tokens, positions, drawn (B) i32; windows (B, T) i32; settings (B, 4) f32;
// keys (B, 4) i32. Sums in f64. Keskar et al. 2019, arXiv:1909.05858; Holtzman et al. 2020, arXiv:1904.09751.
// Grid B, a block per sequence. Minimum traffic: B*V*sizeof(act) bytes, and 8*B*V if scores are penalised.
#include "gpu/simt/token_scores.h"
#include "gpu/simt/top_tokens.h"

// A thread's greatest score, and the first token that has it; V if there is none.
struct Best {
    float score;
    int32_t token;
};

// visit(v, values) for the WIDTH tokens from v on.
template <class T, class Visit>
DEVICE Best scan(const T* row, int64_t V, const Visit& visit) {
    const bool aligned = is_wide(V);
    Best best = {minus_infinity(), static_cast<int32_t>(V)};
    for (int64_t v = threadIdx.x * WIDTH; v < V; v += SAMPLING_THREADS * WIDTH) {
        float values[WIDTH];
        load_some(values, row + v, V - v, aligned);
        visit(v, values);
        const int count = V - v < WIDTH ? static_cast<int>(V - v) : WIDTH, first = static_cast<int32_t>(v);
#pragma unroll
        for (int i = 0; i < WIDTH; ++i)
            if (i < count && values[i] > best.score) best = {values[i], first + i};
    }
    return best;
}

// The first token with the greatest score; 0 if there is none.
DEVICE int32_t greedy(const Best& best, int64_t V) {
    const float greatest = block_maximum<SAMPLING_THREADS>(best.score);
    const float token = static_cast<float>(best.token), none = static_cast<float>(V);  // exact, because V < 2^24
    const float first = -block_maximum<SAMPLING_THREADS>(best.score == greatest ? -token : -none);
    return first < none ? static_cast<int32_t>(first) : 0;
}

// own: the thread's greatest score. uniform: in shared memory, written before the next barrier of the block.
DEVICE int32_t draw(Scores& scores, float own, const Sampling& sampling, const double& uniform) {
    __shared__ TopTokens top;
    const int64_t V = scores.V, asked = static_cast<int64_t>(sampling.top_k),
                  top_k = asked > 0 && asked < V ? asked : V;
    if (top_k <= MOST_TOP_K && top.find(scores, own, static_cast<int>(top_k)))
        return top.draw(scores, static_cast<int>(top_k), sampling.top_p, uniform);
    scores.greatest = block_maximum<SAMPLING_THREADS>(own);
    if (top_k < V) scores.keep(static_cast<double>(top_k), [](uint32_t) { return 1.0f; });
    if (sampling.top_p < 1.0f)
        scores.keep(sampling.top_p * scores.sum_of_weights(), [&](uint32_t key) { return scores.weight(key); });
    return draw_from_all(scores, uniform);
}

KERNEL(SAMPLING_THREADS)
draw_token(int32_t* tokens, int32_t* positions, int32_t* windows, int32_t* drawn, float* scores, const act* logits,
           const float* settings, const int32_t* keys, int64_t B, int64_t T, int64_t V) {
    const int64_t b = blockIdx.x, position = positions[b] + 1;
    int32_t* window = windows + b * T;
    const Sampling sampling = sampling_of(settings + 4 * b);
    const bool is_plain = sampling.repetition_penalty == 1.0f;
    const int32_t number = drawn[b];
    int32_t key[4];  // read here, so that it arrives with the first scores
    for (int i = 0; i < 4; ++i) key[i] = keys[4 * b + i];
    const act* row = logits + b * V;
    float* row_scores = scores + b * V;
    Best best = scan(row, V, [&](int64_t v, const float(&values)[WIDTH]) {
        if (!is_plain) store_some(row_scores + v, values, V - v, is_wide(V));
    });
    if (!is_plain) {
        __syncthreads();
        for (int64_t i = threadIdx.x; i < T && i < position; i += SAMPLING_THREADS)
            row_scores[window[i]] = penalized(widen(row[window[i]]), sampling.repetition_penalty);
        __syncthreads();
        best = scan(row_scores, V, [](int64_t, const float(&)[WIDTH]) {});
    }
    int32_t token;
    if (sampling.temperature == 0.0f) {
        token = greedy(best, V);
    } else {
        __shared__ double uniform;
        // by one thread, because it takes 400 instructions, and by the last one, which has the fewest tokens
        if (threadIdx.x == SAMPLING_THREADS - 1) uniform = uniform_number(number, key);
        Scores of = {row, is_plain ? nullptr : row_scores, V, sampling.temperature};
        token = draw(of, best.score, sampling, uniform);
    }
    if (threadIdx.x == 0) {
        tokens[b] = token;
        window[position % T] = token;
        positions[b] = static_cast<int32_t>(position);
        ++drawn[b];
    }
}

// The next token of a sequence, as sampling.hip says, by a block of DRAW_THREADS.
#pragma once
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
    for (int64_t v = threadIdx.x * WIDTH; v < V; v += DRAW_THREADS * WIDTH) {
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
    const uint64_t entry = best.token < V ? entry_of(best.score, best.token) : 0;
    const uint64_t greatest = block_maximum<DRAW_THREADS>(entry);
    return greatest > 0 ? id_in(greatest) : 0;
}

// own: the thread's greatest score. uniform: in shared memory, written before the next barrier of the block.
DEVICE int32_t draw(Scores& scores, float own, const Sampling& sampling, const double& uniform) {
    __shared__ TopTokens top;
    const int64_t V = scores.V, asked = static_cast<int64_t>(sampling.top_k),
                  top_k = asked > 0 && asked < V ? asked : V;
    if (top_k <= MOST_TOP_K && top.find(scores, own, static_cast<int>(top_k)))
        return top.draw(scores, static_cast<int>(top_k), sampling.top_p, uniform);
    scores.greatest = block_maximum<DRAW_THREADS>(own);
    if (top_k < V) scores.keep(static_cast<double>(top_k), [](uint32_t) { return 1.0f; });
    if (sampling.top_p < 1.0f)
        scores.keep(sampling.top_p * scores.sum_of_weights(), [&](uint32_t key) { return scores.weight(key); });
    return draw_from_all(scores, uniform);
}

// What a draw depends on in addition to the logits: the settings, the tokens of the window, and the number of the draw in
// the stream of a key.
struct Draw {
    Sampling sampling;
    const int32_t* window;
    int64_t window_tokens;
    int32_t number, key[4];
};

// logits (V); scores (V), which are written if tokens are penalised. All threads get the token.
DEVICE int32_t next_token(const act* logits, float* scores, int64_t V, const Draw& of) {
    const Sampling& sampling = of.sampling;
    const bool is_plain = sampling.repetition_penalty == 1.0f;
    Best best = scan(logits, V, [&](int64_t v, const float(&values)[WIDTH]) {
        if (!is_plain) store_some(scores + v, values, V - v, is_wide(V));
    });
    if (!is_plain) {
        __syncthreads();
        for (int64_t i = threadIdx.x; i < of.window_tokens; i += DRAW_THREADS)
            scores[of.window[i]] = penalized(widen(logits[of.window[i]]), sampling.repetition_penalty);
        __syncthreads();
        best = scan(scores, V, [](int64_t, const float(&)[WIDTH]) {});
    }
    if (sampling.temperature == 0.0f) return greedy(best, V);
    __shared__ double uniform;
    // by one thread, because it takes 400 instructions, and by the last one, which has the fewest tokens
    if (threadIdx.x == DRAW_THREADS - 1) uniform = uniform_number(of.number, of.key);
    Scores of_all = {logits, is_plain ? nullptr : scores, V, sampling.temperature};
    return draw(of_all, best.score, sampling, uniform);
}

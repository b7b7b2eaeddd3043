// draw_token: the next token of each of B sequences. p = ++positions[b] is its position, and tokens[b] and
// windows[b, p % T] become the token. The min(p, T) tokens of the window before it are penalised if they are seen again:
//   score = logit > 0 ? logit / penalty : logit * penalty;  weight = exp((score - greatest score) / temperature).
// Drawn from the top_k tokens of the greatest scores, of these from the fewest whose weights reach top_p of their sum,
// and ties go to the lower id. With u = number drawn[b]++ of the stream keys[b] it is the first token, in the order of
// ids, up to which the weights sum to more than u of their sum. Temperature 0 takes the token of the greatest score.
// logits (B, V), act; scores (B, V) f32; tokens, positions, drawn (B) i32; windows (B, T) i32; settings (B, 4) f32;
// keys (B, 4) i32. Sums in f64. Keskar et al. 2019, arXiv:1909.05858; Holtzman et al. 2020, arXiv:1904.09751.
// Grid B, a block per sequence. The scores of the tokens that top_k and top_p leave are bounded by a search for the bits
// of the least of them, from the highest to the lowest. Minimum traffic: B*V*(sizeof(act) + 4) bytes.
#include "gpu/simt/vector_io.h"
#include "gpu/simt/reduce.h"
#include "formulas.h"

// Unsigned numbers in the order of floats; both zeros are the same.
DEVICE uint32_t ordered(float score) {
    const uint32_t bits = static_cast<uint32_t>(float_bits(score + 0.0f));
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float score_of(uint32_t key) {
    return bits_float(static_cast<int32_t>(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key));
}

// A sequence's scores, and which of its tokens may be drawn: those above the least key, and the first `ties` at it.
struct Scores {
    const float* row;
    int64_t V;
    float greatest, temperature;
    uint32_t step;  // between the keys of two numbers of one sign: 2^16 if all scores are those of bf16
    uint32_t least = 0;
    double ties = 0.0;

    // visit(id, score) for every token from `begin` to `end`, WIDTH at once, and then `step` further on.
    template <class Visit>
    DEVICE_MEMBER void visit_tokens(int64_t begin, int64_t end, int64_t step, const Visit& visit) const {
        const bool aligned = is_wide(V);
        for (int64_t v = begin; v < end; v += step) {
            float scores[WIDTH];
            load_some(scores, row + v, end - v, aligned);
#pragma unroll
            for (int i = 0; i < WIDTH; ++i)
                if (v + i < end) visit(v + i, scores[i]);
        }
    }

    // The same for all tokens, which the threads of the block share.
    template <class Visit>
    DEVICE_MEMBER void visit_shared(const Visit& visit) const {
        visit_tokens(threadIdx.x * WIDTH, V, SAMPLING_THREADS * WIDTH, visit);
    }

    DEVICE_MEMBER double weight(uint32_t key) const { return weight_of(score_of(key), greatest, temperature); }

    // The block's sum of measure(key) over the keys from `first` on.
    template <class Measure>
    DEVICE_MEMBER auto sum_from(uint32_t first, const Measure& measure) const {
        decltype(measure(first)) sum = 0;
        visit_shared([&](int64_t, float score) {
            if (const uint32_t key = ordered(score); key >= first) sum += measure(key);
        });
        return block_sum<SAMPLING_THREADS>(sum);
    }

    // Leaves the fewest tokens, from the greatest score down, whose measures sum to `wanted`.
    template <class Measure>
    DEVICE_MEMBER void keep(double wanted, const Measure& measure) {
        uint32_t found = 0;
        double above = 0.0;  // the sum of what is greater than `found`, in the end
        for (uint32_t bit = 0x80000000u; bit >= step; bit /= 2) {
            const uint32_t candidate = found | bit;
            const double sum = candidate > least ? sum_from(candidate, measure) : wanted + 1.0;
            if (sum == wanted) {
                least = candidate - 1;
                ties = 0.0;
                return;
            }
            if (sum > wanted)
                found = candidate;
            else
                above = sum;
        }
        if (found < 0x80000000u) found |= step - 1;  // the keys of negative numbers end in ones
        const double needed = ceil((wanted - above) / measure(found));
        if (found != least || needed < ties) ties = needed;
        least = found;
    }

    DEVICE_MEMBER double sum_of_weights() const {
        const double above = sum_from(least + 1, [this](uint32_t key) { return weight(key); });
        return ties > 0.0 ? above + ties * weight(least) : above;
    }
};

// The sum over this thread and those before it, in a fixed order. All threads of the block must call it.
DEVICE double sum_up_to_here(double value, double (&sums)[SAMPLING_THREADS]) {
    __syncthreads();
    sums[threadIdx.x] = value;
    __syncthreads();
    for (unsigned step = 1; step < SAMPLING_THREADS; step *= 2) {
        if (threadIdx.x >= step) value += sums[threadIdx.x - step];
        __syncthreads();
        sums[threadIdx.x] = value;
        __syncthreads();
    }
    return value;
}

// The first token with the greatest score; 0 if that is NaN.
DEVICE int32_t greedy(const Scores& scores) {
    float first = static_cast<float>(scores.V);  // exact, because V < 2^24
    scores.visit_shared([&](int64_t v, float score) {
        if (score == scores.greatest && static_cast<float>(v) < first) first = static_cast<float>(v);
    });
    first = -block_maximum<SAMPLING_THREADS>(-first);
    return first < static_cast<float>(scores.V) ? static_cast<int32_t>(first) : 0;
}

// A drawn token. Thread i has the i-th run of ids, so that sums are taken in the order of ids.
DEVICE int32_t draw(const Scores& scores, double uniform) {
    __shared__ double sums[SAMPLING_THREADS];
    __shared__ int32_t chosen;
    const int64_t each = (scores.V + SAMPLING_THREADS * WIDTH - 1) / (SAMPLING_THREADS * WIDTH) * WIDTH;
    const int64_t begin = threadIdx.x * each, end = begin + each < scores.V ? begin + each : scores.V;
    double ties = 0.0;
    scores.visit_tokens(begin, end, WIDTH, [&](int64_t, float score) { ties += ordered(score) == scores.least; });
    const double left = scores.ties - (sum_up_to_here(ties, sums) - ties);  // ties that this thread's run still has
    const auto each_kept = [&](const auto& visit) {
        double ties_left = left;
        scores.visit_tokens(begin, end, WIDTH, [&](int64_t v, float score) {
            const uint32_t key = ordered(score);
            if (key > scores.least || (key == scores.least && ties_left-- > 0.0)) visit(v, scores.weight(key));
        });
    };
    double own = 0.0;
    each_kept([&](int64_t, double weight) { own += weight; });
    const double up_to_here = sum_up_to_here(own, sums), wanted = uniform * sums[SAMPLING_THREADS - 1];
    // The first thread whose sum exceeds what is wanted, because rounding may put neighbours' sums out of order. If
    // rounding leaves none, the last thread that has a token.
    const float self = static_cast<float>(threadIdx.x), none = SAMPLING_THREADS;
    const float first = -block_maximum<SAMPLING_THREADS>(own > 0.0 && up_to_here > wanted ? -self : -none);
    const float last_of_all = block_maximum<SAMPLING_THREADS>(own > 0.0 ? self : -1.0f);
    if (threadIdx.x == 0) chosen = 0;
    __syncthreads();
    if (self == (first < none ? first : last_of_all)) {
        double sum = up_to_here - own;
        int32_t last = 0;
        bool is_found = false;
        each_kept([&](int64_t v, double weight) {
            sum += weight;
            if (!is_found) last = static_cast<int32_t>(v);
            is_found = is_found || sum > wanted;
        });
        chosen = last;
    }
    __syncthreads();
    return chosen;
}

KERNEL(SAMPLING_THREADS)
draw_token(int32_t* tokens, int32_t* positions, int32_t* windows, int32_t* drawn, float* scores, const act* logits,
           const float* settings, const int32_t* keys, int64_t B, int64_t T, int64_t V) {
    const int64_t b = blockIdx.x, position = positions[b] + 1;
    const act* row = logits + b * V;
    float* row_scores = scores + b * V;
    int32_t* window = windows + b * T;
    const Sampling sampling = sampling_of(settings + 4 * b);
    const bool aligned = is_wide(V);
    for (int64_t v = threadIdx.x * WIDTH; v < V; v += SAMPLING_THREADS * WIDTH) {
        float values[WIDTH];
        load_some(values, row + v, V - v, aligned);
        store_some(row_scores + v, values, V - v, aligned);
    }
    __syncthreads();
    for (int64_t i = threadIdx.x; i < T && i < position; i += SAMPLING_THREADS)
        row_scores[window[i]] = penalized(widen(row[window[i]]), sampling.repetition_penalty);
    __syncthreads();
    const bool is_rounded = sizeof(act) == 2 && sampling.repetition_penalty == 1.0f;
    Scores of = {row_scores, V, row_scores[0], sampling.temperature, is_rounded ? 1u << 16 : 1u};
    float greatest = row_scores[0];
    of.visit_shared([&](int64_t, float score) { greatest = fmaxf(greatest, score); });
    of.greatest = block_maximum<SAMPLING_THREADS>(greatest);
    int32_t token;
    if (sampling.temperature == 0.0f) {
        token = greedy(of);
    } else {
        const int64_t top_k = static_cast<int64_t>(sampling.top_k);
        if (top_k > 0 && top_k < V) of.keep(static_cast<double>(top_k), [](uint32_t) { return 1.0f; });
        if (sampling.top_p < 1.0f)
            of.keep(sampling.top_p * of.sum_of_weights(), [&of](uint32_t key) { return of.weight(key); });
        token = draw(of, uniform_number(drawn[b], keys + 4 * b));
    }
    if (threadIdx.x == 0) {
        tokens[b] = token;
        window[position % T] = token;
        positions[b] = static_cast<int32_t>(position);
        ++drawn[b];
    }
}

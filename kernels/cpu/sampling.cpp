// draw_token: the next token of each of B sequences. p = ++positions[b] is its position, and tokens[b] and
// windows[b, p % T] become the token. The min(p, T) tokens of the window before it are penalised if they are seen again:
//   score = logit > 0 ? logit / penalty : logit * penalty;  weight = exp((score - greatest score) / temperature).
// Drawn from the top_k tokens of the greatest scores, of these from the fewest whose weights reach top_p of their sum,
// and ties go to the lower id. With u = number drawn[b]++ of the stream keys[b] it is the first token, in the order of
// ids, up to which the weights sum to more than u of their sum. Temperature 0 takes the token of the greatest score.
// If a logit is NaN or +inf, it is any token.
// logits (B, V), act; scores (B, V) f32; tokens, positions, drawn (B) i32; windows (B, T) i32; settings (B, 4) f32;
// keys (B, 4) i32. Sums in f64. Keskar et al. 2019, arXiv:1909.05858; Holtzman et al. 2020, arXiv:1904.09751.
// Minimum traffic: B*V*sizeof(act) bytes.
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/act.h"
#include "cpu/select/convert.h"
#include "cpu/simd/maximum.h"
#include "formulas.h"
#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

namespace {

// A token that may be drawn.
struct Candidate {
    int32_t id;
    float score, weight;
};

// Leaves the `count` candidates of the greatest scores, of which `smallest` is the least.
void keep_largest(std::vector<Candidate>& candidates, int64_t count, float smallest) {
    int64_t ties = count;
    for (const Candidate& one : candidates) ties -= one.score > smallest;
    std::vector<Candidate> kept;
    for (const Candidate& one : candidates)
        if (one.score > smallest || (one.score == smallest && ties-- > 0)) kept.push_back(one);
    candidates.swap(kept);
}

double sum_of_weights(const std::vector<Candidate>& candidates) {
    double sum = 0;
    for (const Candidate& one : candidates) sum += one.weight;
    return sum;
}

void keep_top_k(std::vector<Candidate>& candidates, int64_t count) {
    std::vector<float> scores;
    for (const Candidate& one : candidates) scores.push_back(one.score);
    std::nth_element(scores.begin(), scores.begin() + count - 1, scores.end(), std::greater<float>());
    keep_largest(candidates, count, scores[count - 1]);
}

void keep_top_p(std::vector<Candidate>& candidates, float share) {
    std::vector<Candidate> descending = candidates;
    std::sort(descending.begin(), descending.end(),
              [](const Candidate& one, const Candidate& other) { return one.score > other.score; });
    const double wanted = share * sum_of_weights(descending);
    double sum = 0;
    size_t count = 0;
    do sum += descending[count++].weight;
    while (count < descending.size() && sum < wanted);
    keep_largest(candidates, count, descending[count - 1].score);
}

int32_t draw(const float* scores, int64_t V, const Sampling& sampling, double uniform) {
    const float greatest = maximum_of(scores, V);
    if (!(greatest >= scores[0])) return 0;  // NaN
    if (sampling.temperature == 0.0f) return static_cast<int32_t>(first_index_of(greatest, scores, V));
    std::vector<Candidate> candidates(V);
    for (int64_t v = 0; v < V; ++v)
        candidates[v] = {static_cast<int32_t>(v), scores[v], weight_of(scores[v], greatest, sampling.temperature)};
    const auto is_nan = [](const Candidate& one) { return std::isnan(one.score); };
    if (std::any_of(candidates.begin(), candidates.end(), is_nan)) return 0;  // they have no order
    const int64_t top_k = static_cast<int64_t>(sampling.top_k);
    if (top_k > 0 && top_k < V) keep_top_k(candidates, top_k);
    if (sampling.top_p < 1.0f) keep_top_p(candidates, sampling.top_p);
    const double wanted = uniform * sum_of_weights(candidates);
    double sum = 0;
    for (const Candidate& one : candidates)
        if ((sum += one.weight) > wanted) return one.id;
    return candidates.back().id;
}

}  // namespace

extern "C" void draw_token(int32_t* tokens, int32_t* positions, int32_t* windows, int32_t* drawn, float* scores,
                           const act* logits, const float* settings, const int32_t* keys, int64_t B, int64_t T,
                           int64_t V) {
    parallel_ranges(B, worth_a_thread(V), [=](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; ++b) {
            const act* row = logits + b * V;
            float* row_scores = scores + b * V;
            int32_t* window = windows + b * T;
            const int64_t position = ++positions[b];
            load(row_scores, row, V);
            const Sampling sampling = sampling_of(settings + 4 * b);
            const float penalty = sampling.repetition_penalty;
            for (int64_t i = 0; penalty != 1.0f && i < std::min(position, T); ++i)
                row_scores[window[i]] = penalized(static_cast<float>(row[window[i]]), penalty);
            tokens[b] = draw(row_scores, V, sampling, uniform_number(drawn[b]++, keys + 4 * b));
            window[position % T] = tokens[b];
        }
    });
}

CALLABLE(draw_token)

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
#include "gpu/launch_shapes.h"
constexpr int DRAW_THREADS = SAMPLING_THREADS;
#include "gpu/simt/next_token.h"

KERNEL(SAMPLING_THREADS)
draw_token(int32_t* tokens, int32_t* positions, int32_t* windows, int32_t* drawn, float* scores, const act* logits,
           const float* settings, const int32_t* keys, int64_t B, int64_t T, int64_t V) {
    const int64_t b = blockIdx.x, position = positions[b] + 1;
    int32_t* window = windows + b * T;
    // the key is read here, so that it arrives with the first scores
    Draw of = {sampling_of(settings + 4 * b), window, position < T ? position : T, drawn[b], {}};
    for (int i = 0; i < 4; ++i) of.key[i] = keys[4 * b + i];
    const int32_t token = next_token(logits + b * V, scores + b * V, V, of);
    if (threadIdx.x == 0) {
        tokens[b] = token;
        window[position % T] = token;
        positions[b] = static_cast<int32_t>(position);
        ++drawn[b];
    }
}

// cross_entropy_forward: losses[n] = log(sum over v of e^logits[n, v]) - logits[n, target]. ranks[n] counts the tokens
// before the target in descending order of logits; ties go to the lower id.
// cross_entropy_training: the same losses. logits become their gradient, scale * (softmax(logits) - onehot(target)).
// logits (N, V) row-major, act; targets, ranks (N) i32; losses (N) f32; sums in f32. Grid N, a block per row.
// Minimum traffic: N*V*sizeof(act) + 12*N bytes; training writes as much as it reads: 2*N*V*sizeof(act) + 8*N bytes.
#include "gpu/simt/row_softmax.h"

KERNEL(THREADS)
cross_entropy_forward(float* losses, int32_t* ranks, const act* logits, const int32_t* targets, int64_t N, int64_t V) {
    const int64_t n = blockIdx.x, target = targets[n];
    const act* row = logits + n * V;
    const float target_logit = widen(row[target]);
    const Softmax whole = softmax<THREADS>(row, V);
    float before = 0.0f;
    for (int64_t v = threadIdx.x; v < V; v += THREADS) {
        const float value = widen(row[v]);
        before += value > target_logit || (value == target_logit && v < target) ? 1.0f : 0.0f;
    }
    before = block_sum<THREADS>(before);
    if (threadIdx.x == 0) {
        losses[n] = logf(whole.sum) + (whole.maximum - target_logit);
        ranks[n] = static_cast<int32_t>(before);
    }
}

KERNEL(THREADS)
cross_entropy_training(float* losses, act* logits, const int32_t* targets, int64_t N, int64_t V, float scale) {
    const int64_t n = blockIdx.x;
    const float loss = train_on_row<THREADS>(logits + n * V, logits + n * V, targets[n], V, scale);
    if (threadIdx.x == 0) losses[n] = loss;
}

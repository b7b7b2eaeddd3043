// cross_entropy_forward: losses[n] = log(sum over v of e^logits[n, v]) - logits[n, target]. ranks[n] counts the tokens
// before the target in descending order of logits; ties go to the lower id.
// cross_entropy_training: the same losses. logits become their gradient, scale * (softmax(logits) - onehot(target)).
// logits (N, V) row-major, act; targets, ranks (N) i32; losses (N) f32; sums in f32. Grid N, a block per row.
// Minimum traffic: N*V*sizeof(act) + 12*N bytes; training writes as much as it reads: 2*N*V*sizeof(act) + 8*N bytes.
// The softmax is online, one pass: Milakov & Gimelshein 2018, arXiv:1805.02867.
#include "gpu/simt/vector_io.h"
#include "gpu/simt/reduce.h"
#include "formulas.h"

struct Softmax {
    float maximum, sum;  // sum of e^(x - maximum)
};

// The maximum and the sum of a row of logits, by the whole block. Ends with a barrier of the block.
template <int W>
DEVICE Softmax softmax(const act* row, int64_t V) {
    float maximum = widen(row[0]), sum = 0.0f, values[W];
    for (int64_t v = threadIdx.x * W; v < V; v += THREADS * W) {
        load(values, row + v);
        float raised = maximum;
        for (int i = 0; i < W; ++i) raised = fmaxf(raised, values[i]);
        sum *= exp_of(maximum - raised);  // the sum so far, relative to the new maximum
        for (int i = 0; i < W; ++i) sum += exp_of(values[i] - raised);
        maximum = raised;
    }
    const float highest = block_maximum<THREADS>(maximum);
    return {highest, block_sum<THREADS>(sum * exp_of(maximum - highest))};
}

KERNEL(THREADS)
cross_entropy_forward(float* losses, int32_t* ranks, const act* logits, const int32_t* targets, int64_t N, int64_t V) {
    const int64_t n = blockIdx.x, target = targets[n];
    const act* row = logits + n * V;
    const float target_logit = widen(row[target]);
    const Softmax whole = is_wide(V) ? softmax<WIDTH>(row, V) : softmax<1>(row, V);
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

template <int W>
DEVICE void differentiate(act* row, const Softmax& whole, int64_t target, int64_t V, float scale) {
    const float factor = scale / whole.sum;
    float values[W];
    for (int64_t v = threadIdx.x * W; v < V; v += THREADS * W) {
        load(values, row + v);
        for (int i = 0; i < W; ++i)
            values[i] = exp_of(values[i] - whole.maximum) * factor - (v + i == target ? scale : 0.0f);
        store(row + v, values);
    }
}

KERNEL(THREADS)
cross_entropy_training(float* losses, act* logits, const int32_t* targets, int64_t N, int64_t V, float scale) {
    const int64_t n = blockIdx.x, target = targets[n];
    act* row = logits + n * V;
    const float target_logit = widen(row[target]);  // read by all threads before softmax's barrier, written after it
    const Softmax whole = is_wide(V) ? softmax<WIDTH>(row, V) : softmax<1>(row, V);
    if (is_wide(V))
        differentiate<WIDTH>(row, whole, target, V, scale);
    else
        differentiate<1>(row, whole, target, V, scale);
    if (threadIdx.x == 0) losses[n] = logf(whole.sum) + (whole.maximum - target_logit);
}

// Cross-entropy of a row of logits by a block of BLOCK_THREADS.
// The softmax is online, one pass: Milakov & Gimelshein 2018, arXiv:1805.02867.
#pragma once
#include "gpu/simt/vector_io.h"
#include "gpu/simt/reduce.h"
#include "formulas.h"

struct Softmax {
    float maximum, sum;  // sum of e^(x - maximum)
};

// The maximum and the sum of a row of logits, by the whole block. Ends with a barrier of the block.
template <int BLOCK_THREADS, int W>
DEVICE Softmax softmax(const act* row, int64_t V) {
    float maximum = widen(row[0]), sum = 0.0f, values[W];
    for (int64_t v = threadIdx.x * W; v < V; v += BLOCK_THREADS * W) {
        load(values, row + v);
        float raised = maximum;
        for (int i = 0; i < W; ++i) raised = fmaxf(raised, values[i]);
        sum *= exp_of(maximum - raised);  // the sum so far, relative to the new maximum
        for (int i = 0; i < W; ++i) sum += exp_of(values[i] - raised);
        maximum = raised;
    }
    const float highest = block_maximum<BLOCK_THREADS>(maximum);
    return {highest, block_sum<BLOCK_THREADS>(sum * exp_of(maximum - highest))};
}

template <int BLOCK_THREADS>
DEVICE Softmax softmax(const act* row, int64_t V) {
    return is_wide(V) ? softmax<BLOCK_THREADS, WIDTH>(row, V) : softmax<BLOCK_THREADS, 1>(row, V);
}

template <int BLOCK_THREADS, int W>
DEVICE void differentiate(act* gradients, const act* row, const Softmax& whole, int64_t target, int64_t V,
                          float scale) {
    const float factor = scale / whole.sum;
    float values[W];
    for (int64_t v = threadIdx.x * W; v < V; v += BLOCK_THREADS * W) {
        load(values, row + v);
        for (int i = 0; i < W; ++i)
            values[i] = exp_of(values[i] - whole.maximum) * factor - (v + i == target ? scale : 0.0f);
        store(gradients + v, values);
    }
}

// The loss of a row. gradients: of its logits, in the place of the row or elsewhere.
template <int BLOCK_THREADS>
DEVICE float train_on_row(act* gradients, const act* row, int64_t target, int64_t V, float scale) {
    const float target_logit = widen(row[target]);  // read by all threads before softmax's barrier, written after it
    const Softmax whole = softmax<BLOCK_THREADS>(row, V);
    if (is_wide(V))
        differentiate<BLOCK_THREADS, WIDTH>(gradients, row, whole, target, V, scale);
    else
        differentiate<BLOCK_THREADS, 1>(gradients, row, whole, target, V, scale);
    return logf(whole.sum) + (whole.maximum - target_logit);
}

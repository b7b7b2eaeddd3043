// cross_entropy_forward, cross_entropy_training: formulas in kernels/cpu/cross_entropy.cpp. Grid N, a block a row, of which
// each thread takes WIDTH neighbours at a time where V allows it.
#include "platform.h"
#include "reduce.h"
#include "values.h"
#include "formulas.h"

constexpr int THREADS = 256;

struct Softmax {
    float maximum, sum;  // of e^(x - maximum)
};

// Of a row, in one pass: each thread raises its maximum as it goes (Milakov & Gimelshein 2018, arXiv:1805.02867).
template <int W>
DEVICE Softmax softmax(const act* row, int64_t V) {
    float maximum = widen(row[0]), sum = 0.0f, values[W];
    for (int64_t v = threadIdx.x * W; v < V; v += THREADS * W) {
        load(values, row + v);
        float raised = maximum;
        for (int i = 0; i < W; ++i) raised = fmaxf(raised, values[i]);
        sum *= exp_of(maximum - raised);
        for (int i = 0; i < W; ++i) sum += exp_of(values[i] - raised);
        maximum = raised;
    }
    const float highest = block_maximum<THREADS>(maximum);
    return {highest, block_sum<THREADS>(sum * exp_of(maximum - highest))};
}

KERNEL(THREADS) cross_entropy_forward(float* losses, int32_t* ranks, const act* logits, const int32_t* targets, int64_t N,
                                      int64_t V) {
    const int64_t n = blockIdx.x, target = targets[n];
    const act* row = logits + n * V;
    const float wanted = widen(row[target]);
    const Softmax whole = is_wide(V) ? softmax<WIDTH>(row, V) : softmax<1>(row, V);
    float before = 0.0f;
    for (int64_t v = threadIdx.x; v < V; v += THREADS) {
        const float value = widen(row[v]);
        before += value > wanted || (value == wanted && v < target) ? 1.0f : 0.0f;
    }
    before = block_sum<THREADS>(before);
    if (threadIdx.x == 0) {
        losses[n] = logf(whole.sum) + (whole.maximum - wanted);
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

KERNEL(THREADS) cross_entropy_training(float* losses, act* logits, const int32_t* targets, int64_t N, int64_t V, float scale) {
    const int64_t n = blockIdx.x, target = targets[n];
    act* row = logits + n * V;
    const float wanted = widen(row[target]);
    const Softmax whole = is_wide(V) ? softmax<WIDTH>(row, V) : softmax<1>(row, V);  // ends with a barrier: wanted is read
    if (is_wide(V))
        differentiate<WIDTH>(row, whole, target, V, scale);
    else
        differentiate<1>(row, whole, target, V, scale);
    if (threadIdx.x == 0) losses[n] = logf(whole.sum) + (whole.maximum - wanted);
}

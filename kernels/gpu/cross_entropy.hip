// cross_entropy_forward, cross_entropy_training: formulas in kernels/cpu/cross_entropy.cpp. Grid N, a block a row.
#include "platform.h"
#include "scalar.h"
#include "reduce.h"

constexpr int THREADS = 256;

DEVICE float row_maximum(const float* row, int64_t V) {
    float maximum = row[0];
    for (int64_t v = threadIdx.x; v < V; v += THREADS) maximum = fmaxf(maximum, row[v]);
    return block_maximum<THREADS>(maximum);
}

KERNEL(THREADS) cross_entropy_forward(float* losses, int32_t* ranks, const float* logits, const int32_t* targets, int64_t N,
                                      int64_t V) {
    const int64_t n = blockIdx.x, target = targets[n];
    const float* row = logits + n * V;
    const float maximum = row_maximum(row, V), wanted = row[target];
    float sum = 0.0f, before = 0.0f;
    for (int64_t v = threadIdx.x; v < V; v += THREADS) {
        sum += exp_f32(row[v] - maximum);
        before += row[v] > wanted || (row[v] == wanted && v < target) ? 1.0f : 0.0f;
    }
    sum = block_sum<THREADS>(sum);
    before = block_sum<THREADS>(before);
    if (threadIdx.x == 0) {
        losses[n] = logf(sum) + (maximum - wanted);
        ranks[n] = static_cast<int32_t>(before);
    }
}

KERNEL(THREADS) cross_entropy_training(float* losses, float* logits, const int32_t* targets, int64_t N, int64_t V, float scale) {
    const int64_t n = blockIdx.x, target = targets[n];
    float* row = logits + n * V;
    const float maximum = row_maximum(row, V), wanted = row[target];
    float sum = 0.0f;
    for (int64_t v = threadIdx.x; v < V; v += THREADS) sum += exp_f32(row[v] - maximum);
    sum = block_sum<THREADS>(sum);
    const float factor = scale / sum;
    for (int64_t v = threadIdx.x; v < V; v += THREADS)
        row[v] = exp_f32(row[v] - maximum) * factor - (v == target ? scale : 0.0f);
    if (threadIdx.x == 0) losses[n] = logf(sum) + (maximum - wanted);
}

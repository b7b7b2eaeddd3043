// The forward passes of a linear layer for few rows, as a decoder has them: formulas and layouts as in matmul.hip.
//
// The weights are read once, and their bytes bound the time. A wave computes one column of y. Its lanes read WIDTH
// neighbours of that row of `weight` at a time, and multiply them by as many of every row of x, which the cache holds.
// Grid ceil(O / (THREADS / WAVE)). MOST_ROWS: of x. Minimum traffic: O*C*sizeof(act) bytes.
#include "gpu/gemm/linear_layer.h"
#include "gpu/simt/reduce.h"

constexpr int IN_FLIGHT = 4;  // loads of weights that a lane issues together, because one load's latency is long

// ROWS: as many rows of x as N says, or more. W: neighbours that a lane reads at a time.
template <int ROWS, int W, class Operation>
DEVICE void multiply_column(const act* x, const act* weight, int64_t N, int64_t C, int64_t o,
                            const Operation& operation) {
    constexpr int STEP = WAVE * W;
    float sums[ROWS] = {};
    for (int64_t first = threadIdx.x % WAVE * W; first < C; first += IN_FLIGHT * STEP) {
        float factors[IN_FLIGHT][W] = {};
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i)
            if (first + i * STEP < C) load(factors[i], weight + o * C + first + i * STEP);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) {
            const int64_t c = first + i * STEP;
            if (c >= C) break;
#pragma unroll
            for (int n = 0; n < ROWS; ++n) {
                if (n >= N) continue;
                float values[W];
                load(values, x + n * C + c);
                for (int e = 0; e < W; ++e) sums[n] += values[e] * factors[i][e];
            }
        }
    }
#pragma unroll
    for (int n = 0; n < ROWS; ++n) {
        if (n >= N) continue;
        const Values<1> sum = {{wave_sum(sums[n])}};
        if (threadIdx.x % WAVE == 0) operation.store(n, o, sum, operation.template fetch<1>(n, o, 1, false), 1, false);
    }
}

template <class Operation>
DEVICE void multiply(const act* x, const act* weight, int64_t N, int64_t O, int64_t C, const Operation& operation) {
    const int64_t o = int64_t{blockIdx.x} * (THREADS / WAVE) + threadIdx.x / WAVE;
    if (o >= O) return;
    if (!is_wide(C))
        multiply_column<MOST_ROWS, 1>(x, weight, N, C, o, operation);
    else if (N == 1)
        multiply_column<1, WIDTH>(x, weight, N, C, o, operation);
    else
        multiply_column<MOST_ROWS, WIDTH>(x, weight, N, C, o, operation);
}

KERNEL(THREADS)
matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C) {
    multiply(x, weight, N, O, C, forward_operation(y, bias, O));
}

KERNEL(THREADS)
matmul_gelu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C) {
    multiply(x, weight, N, O, C, gelu_forward_operation(y, slope, bias, O));
}

KERNEL(THREADS)
matmul_relu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C) {
    multiply(x, weight, N, O, C, relu_forward_operation(y, slope, bias, O));
}

KERNEL(THREADS)
matmul_relu2_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                     int64_t C) {
    multiply(x, weight, N, O, C, relu2_forward_operation(y, slope, bias, O));
}

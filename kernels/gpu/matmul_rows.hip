// The forward passes of a linear layer for few rows, as a decoder has them: formulas and layouts as in matmul.hip.
//
// The weights are read once, and their bytes bound the time. A wave computes one column of y, or COLUMNS_OF_MANY if there
// are MANY_OUTPUTS of a single row: they share the loads of x. A lane loads WIDTH neighbours of a row of `weight` and
// multiplies them by the same columns of every row of x, which the cache holds. Grid ceil(O / (columns of a block)).
// MOST_ROWS: of x. Minimum traffic: O*C*sizeof(act) bytes.
#include "gpu/gemm/linear_layer.h"
#include "gpu/simt/reduce.h"

constexpr int MOST_IN_FLIGHT = 8;  // loads of weights that a lane issues together, because one load's latency is long

// W neighbours as they are in memory.
template <int W>
struct alignas(W * sizeof(act) < 16 ? W * sizeof(act) : 16) Neighbours {
    act value[W];
};

// ROWS: as many rows of x as N says, or more. W: neighbours that a lane reads at a time. COLUMNS of y, from o on; those
// beyond the last one are computed from its weights and not stored.
template <int ROWS, int W, int COLUMNS, class Operation>
DEVICE void multiply_columns(const act* x, const act* weight, int64_t N, int64_t O, int64_t C, int64_t o,
                             const Operation& operation) {
    constexpr int STEP = WAVE * W, IN_FLIGHT = COLUMNS == 1 ? MOST_IN_FLIGHT / 2 : MOST_IN_FLIGHT / COLUMNS;
    float sums[COLUMNS][ROWS] = {};
    for (int64_t first = threadIdx.x % WAVE * W; first < C; first += IN_FLIGHT * STEP) {
        Neighbours<W> weights[IN_FLIGHT][COLUMNS] = {};
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i)
            for (int column = 0; column < COLUMNS; ++column) {
                const int64_t row = o + column < O ? o + column : O - 1;
                if (first + i * STEP >= C) continue;
                weights[i][column] = *reinterpret_cast<const Neighbours<W>*>(weight + row * C + first + i * STEP);
            }
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) {
            const int64_t c = first + i * STEP;
            if (c >= C) break;
#pragma unroll
            for (int n = 0; n < ROWS; ++n) {
                if (n >= N) continue;
                float values[W];
                load(values, x + n * C + c);
                for (int column = 0; column < COLUMNS; ++column)
                    for (int e = 0; e < W; ++e) sums[column][n] += values[e] * widen(weights[i][column].value[e]);
            }
        }
    }
#pragma unroll
    for (int column = 0; column < COLUMNS; ++column)
#pragma unroll
        for (int n = 0; n < ROWS; ++n) {
            if (n >= N) continue;
            const Values<1> sum = {{wave_sum(sums[column][n])}};
            if (threadIdx.x % WAVE == 0 && o + column < O)
                operation.store(n, o + column, sum, operation.template fetch<1>(n, o + column, 1, false), 1, false);
        }
}

// The columns of this wave.
template <int ROWS, int COLUMNS, class Operation>
DEVICE void multiply_rows(const act* x, const act* weight, int64_t N, int64_t O, int64_t C,
                          const Operation& operation) {
    const int64_t o = (int64_t{blockIdx.x} * (THREADS / WAVE) + threadIdx.x / WAVE) * COLUMNS;
    if (o >= O) return;
    if (is_wide(C))
        multiply_columns<ROWS, WIDTH, COLUMNS>(x, weight, N, O, C, o, operation);
    else
        multiply_columns<ROWS, 1, COLUMNS>(x, weight, N, O, C, o, operation);
}

template <class Operation>
DEVICE void multiply(const act* x, const act* weight, int64_t N, int64_t O, int64_t C, const Operation& operation) {
    if (N > 1)
        multiply_rows<MOST_ROWS, 1>(x, weight, N, O, C, operation);
    else if (O < MANY_OUTPUTS)
        multiply_rows<1, 1>(x, weight, N, O, C, operation);
    else
        multiply_rows<1, COLUMNS_OF_MANY>(x, weight, N, O, C, operation);
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

// The products of a linear layer in bf16 by matrix units: formulas in kernels/cpu/matmul.cpp, sums in f32.
//
// One product C (M, N) = A (M, K) B (N, K)^T serves all: Product<how A lies in memory, how B does>::run of product.h, which is
// product/fragments.h or product/wgmma.h. A block makes a piece of SIDE x SIDE of C; side.h says whether SIDE is 128, 64 or 32,
// so that small products fill the chip too. Grid: ceil(N / SIDE) x ceil(M / SIDE).
//
// Where that is too few blocks for long sums, two launches take its place: see Outgoing in product/pieces.h.
#include "platform.h"
#include "values.h"
#include "scalar.h"
#include "product.h"

using Run = float[WIDTH];

// Calls store(place in y, run of sum + bias, how many of the run are inside).
template <class Store>
DEVICE void forward(const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C, const Parts& parts,
                    const Store& store) {
    auto add_bias = [=](int64_t n, int64_t o, Run& values, int64_t count) {
        if (bias) {
            Run added;
            load_some(added, bias + o, count, true);
            for (int i = 0; i < WIDTH; ++i) values[i] += added[i];
        }
        store(n * O + o, values, count);
    };
    Product<true, true>::run({x, C}, {weight, C}, N, O, C, add_bias, NoRowSums{}, parts);
}

// Calls store(place in dx, run of sums, how many of the run are inside).
template <class Store>
DEVICE void backward_input(const act* dy, const act* weight, int64_t N, int64_t C, int64_t O, const Parts& parts,
                           const Store& store) {
    auto at = [=](int64_t n, int64_t c, Run& values, int64_t count) { store(n * C + c, values, count); };
    Product<true, false>::run({dy, O}, {weight, C}, N, C, O, at, NoRowSums{}, parts);
}

KERNEL(THREADS) matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C, float* workspace, int32_t phase, int32_t part_count) {
    const bool wide = is_wide(O);
    forward(x, weight, bias, N, O, C, {workspace, phase, part_count}, [=](int64_t i, Run& values, int64_t count) { store_some(y + i, values, count, wide); });
}

KERNEL(THREADS) matmul_gelu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                                    int64_t C, float* workspace, int32_t phase, int32_t part_count) {
    const bool wide = is_wide(O);
    forward(x, weight, bias, N, O, C, {workspace, phase, part_count}, [=](int64_t i, Run& values, int64_t count) {
        store_some(hidden + i, values, count, wide);
        for (float& value : values) value = gelu(value);
        store_some(y + i, values, count, wide);
    });
}

KERNEL(THREADS) matmul_relu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                                    int64_t C, float* workspace, int32_t phase, int32_t part_count) {
    const bool wide = is_wide(O);
    forward(x, weight, bias, N, O, C, {workspace, phase, part_count}, [=](int64_t i, Run& values, int64_t count) {
        store_some(hidden + i, values, count, wide);
        for (float& value : values) value = fmaxf(value, 0.0f);
        store_some(y + i, values, count, wide);
    });
}

KERNEL(THREADS) matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O, float* workspace, int32_t phase, int32_t part_count) {
    const bool wide = is_wide(C);
    backward_input(dy, weight, N, C, O, {workspace, phase, part_count}, [=](int64_t i, Run& values, int64_t count) { store_some(dx + i, values, count, wide); });
}

KERNEL(THREADS) matmul_gelu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N, int64_t C,
                                           int64_t O, float* workspace, int32_t phase, int32_t part_count) {
    const bool wide = is_wide(C);
    backward_input(dy, weight, N, C, O, {workspace, phase, part_count}, [=](int64_t i, Run& values, int64_t count) {
        Run before;
        load_some(before, hidden + i, count, wide);
        for (int e = 0; e < WIDTH; ++e) values[e] *= gelu_derivative(before[e]);
        store_some(dhidden + i, values, count, wide);
    });
}

KERNEL(THREADS) matmul_relu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N, int64_t C,
                                           int64_t O, float* workspace, int32_t phase, int32_t part_count) {
    const bool wide = is_wide(C);
    backward_input(dy, weight, N, C, O, {workspace, phase, part_count}, [=](int64_t i, Run& values, int64_t count) {
        Run before;
        load_some(before, hidden + i, count, wide);
        for (int e = 0; e < WIDTH; ++e) values[e] = before[e] > 0.0f ? values[e] : 0.0f;
        store_some(dhidden + i, values, count, wide);
    });
}

// dbias is the sum of the rows of A, dy^T.
KERNEL(THREADS) matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C, int64_t N, float* workspace, int32_t phase, int32_t part_count) {
    const bool wide = is_wide(C);
    auto add = [=](int64_t o, int64_t c, Run& values, int64_t count) {
        Run before;
        load_some(before, dweight + o * C + c, count, wide);
        for (int i = 0; i < WIDTH; ++i) values[i] += before[i];
        store_some(dweight + o * C + c, values, count, wide);
    };
    Product<false, false>::run({dy, O}, {x, C}, O, C, N, add, AddRowSums{dbias}, {workspace, phase, part_count});
}

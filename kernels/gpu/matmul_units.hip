// The products of a linear layer in bf16 by matrix units: formulas in kernels/cpu/matmul.cpp, sums in f32.
//
// One product C (M, N) = A (M, K) B (N, K)^T serves all: Product<how A lies in memory, how B does>::run of product.h, which is
// product/fragments.h or product/wgmma.h. A block makes a piece of SIDE x SIDE of C; side.h says whether SIDE is 128, 64 or 32,
// so that small products fill the chip too. Grid: ceil(N / SIDE) x ceil(M / SIDE).
//
// Where that is too few blocks for long sums, two launches take its place: see Outgoing in product/pieces.h.
#include "platform.h"
#include "values.h"
#include "formulas.h"
#include "product.h"

struct Nothing {};

// y = x weight^T + bias; calls store(place in y, run of y, how many of it are inside, whether all are).
template <class Store>
DEVICE void forward(const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C, const Parts& parts,
                    const Store& store) {
    auto fetch_bias = [=](int64_t, int64_t o, int64_t count, bool wide) {
        Run added = {};
        if (bias) load_some(added.value, bias + o, count, wide);
        return added;
    };
    auto add_bias = [=](int64_t n, int64_t o, Run& y, const Run& added, int64_t count, bool wide) {
        for (int i = 0; i < WIDTH; ++i) y.value[i] += added.value[i];
        store(n * O + o, y, count, wide);
    };
    Product<true, true>::run({x, C}, {weight, C}, N, O, C, epilogue_of(fetch_bias, add_bias), NoRowSums{}, parts);
}

// d activation's input = derivative(gradient of its output dy weight, its input).
template <class Derivative>
DEVICE void backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N, int64_t C, int64_t O,
                           const Parts& parts, const Derivative& derivative) {
    auto fetch_hidden = [=](int64_t n, int64_t c, int64_t count, bool wide) {
        Run before;
        load_some(before.value, hidden + n * C + c, count, wide);
        return before;
    };
    auto store = [=](int64_t n, int64_t c, Run& dx, const Run& before, int64_t count, bool wide) {
        for (int i = 0; i < WIDTH; ++i) dx.value[i] = derivative(dx.value[i], before.value[i]);
        store_some(dhidden + n * C + c, dx.value, count, wide);
    };
    Product<true, false>::run({dy, O}, {weight, C}, N, C, O, epilogue_of(fetch_hidden, store), NoRowSums{}, parts);
}

KERNEL(THREADS) matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C,
                               float* workspace, int32_t phase, int32_t part_count) {
    forward(x, weight, bias, N, O, C, {workspace, phase, part_count},
            [=](int64_t i, Run& sums, int64_t count, bool wide) { store_some(y + i, sums.value, count, wide); });
}

KERNEL(THREADS) matmul_gelu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                                    int64_t C, float* workspace, int32_t phase, int32_t part_count) {
    forward(x, weight, bias, N, O, C, {workspace, phase, part_count}, [=](int64_t i, Run& sums, int64_t count, bool wide) {
        store_some(hidden + i, sums.value, count, wide);
        for (float& value : sums.value) value = gelu(value);
        store_some(y + i, sums.value, count, wide);
    });
}

KERNEL(THREADS) matmul_relu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                                    int64_t C, float* workspace, int32_t phase, int32_t part_count) {
    forward(x, weight, bias, N, O, C, {workspace, phase, part_count}, [=](int64_t i, Run& sums, int64_t count, bool wide) {
        store_some(hidden + i, sums.value, count, wide);
        for (float& value : sums.value) value = fmaxf(value, 0.0f);
        store_some(y + i, sums.value, count, wide);
    });
}

KERNEL(THREADS) matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O,
                                      float* workspace, int32_t phase, int32_t part_count) {
    auto fetch_nothing = [](int64_t, int64_t, int64_t, bool) { return Nothing{}; };
    auto store = [=](int64_t n, int64_t c, Run& sums, Nothing, int64_t count, bool wide) {
        store_some(dx + n * C + c, sums.value, count, wide);
    };
    const Parts parts = {workspace, phase, part_count};
    Product<true, false>::run({dy, O}, {weight, C}, N, C, O, epilogue_of(fetch_nothing, store), NoRowSums{}, parts);
}

KERNEL(THREADS) matmul_gelu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N,
                                           int64_t C, int64_t O, float* workspace, int32_t phase, int32_t part_count) {
    backward_input(dhidden, dy, weight, hidden, N, C, O, {workspace, phase, part_count},
                   [](float gradient, float before) { return gradient * gelu_derivative(before); });
}

KERNEL(THREADS) matmul_relu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N,
                                           int64_t C, int64_t O, float* workspace, int32_t phase, int32_t part_count) {
    backward_input(dhidden, dy, weight, hidden, N, C, O, {workspace, phase, part_count},
                   [](float gradient, float before) { return before > 0.0f ? gradient : 0.0f; });
}

// dbias is the sum of the rows of A, dy^T.
KERNEL(THREADS) matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C, int64_t N,
                                       float* workspace, int32_t phase, int32_t part_count) {
    auto fetch = [=](int64_t o, int64_t c, int64_t count, bool wide) {
        Run before;
        load_some(before.value, dweight + o * C + c, count, wide);
        return before;
    };
    auto add = [=](int64_t o, int64_t c, Run& sums, const Run& before, int64_t count, bool wide) {
        for (int i = 0; i < WIDTH; ++i) sums.value[i] += before.value[i];
        store_some(dweight + o * C + c, sums.value, count, wide);
    };
    const Parts parts = {workspace, phase, part_count};
    Product<false, false>::run({dy, O}, {x, C}, O, C, N, epilogue_of(fetch, add), AddRowSums{dbias}, parts);
}

// The GEMMs of a linear layer in bf16 by matrix instructions: formulas and layouts as in matmul.hip.
//
// One GEMM, C (M, N) = A (M, K) B (N, K)^T, serves all of them: Gemm<A_K_CONTIGUOUS, B_K_CONTIGUOUS>::run of
// select/mainloop.h, whose parameters say how A and B are stored. Sums in f32; activation functions, biases and the
// addition to dweight are fused into the epilogue. Grid ceil(N / BLOCK_TILE) x ceil(M / BLOCK_TILE): a block computes
// one block tile. BLOCK_TILE is 128, 64 or 32, so that small GEMMs give the chip enough blocks too. A GEMM with a long
// K and still too few blocks takes two launches and a workspace: see gemm/split_k.h.
#include "gpu/select/mainloop.h"
#include "formulas.h"

struct Nothing {};

// y = x weight^T + bias. Calls store(index in y, segment, count, wide): see Fused in epilogue.h.
template <class Store>
DEVICE void forward(const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C,
                    const SplitK& split_k, const Store& store) {
    auto fetch_bias = [=](int64_t, int64_t o, int64_t count, bool wide) {
        Segment added = {};
        if (bias) load_some(added.value, bias + o, count, wide);
        return added;
    };
    auto add_bias = [=](int64_t n, int64_t o, Segment& y, const Segment& added, int64_t count, bool wide) {
        for (int i = 0; i < WIDTH; ++i) y.value[i] += added.value[i];
        store(n * O + o, y, count, wide);
    };
    Gemm<true, true>::run({x, C}, {weight, C}, N, O, C, fused(fetch_bias, add_bias), NoRowSums{}, split_k);
}

// dhidden = derivative(dy weight, hidden): the gradient of an activation function's input from that of its output.
template <class Derivative>
DEVICE void backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N, int64_t C,
                           int64_t O, const SplitK& split_k, const Derivative& derivative) {
    auto fetch_hidden = [=](int64_t n, int64_t c, int64_t count, bool wide) {
        Segment before;
        load_some(before.value, hidden + n * C + c, count, wide);
        return before;
    };
    auto store = [=](int64_t n, int64_t c, Segment& dx, const Segment& before, int64_t count, bool wide) {
        for (int i = 0; i < WIDTH; ++i) dx.value[i] = derivative(dx.value[i], before.value[i]);
        store_some(dhidden + n * C + c, dx.value, count, wide);
    };
    Gemm<true, false>::run({dy, O}, {weight, C}, N, C, O, fused(fetch_hidden, store), NoRowSums{}, split_k);
}

KERNEL(MMA_THREADS)
matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C,
               float* workspace, int32_t phase, int32_t slice_count) {
    forward(x, weight, bias, N, O, C, {workspace, phase, slice_count},
            [=](int64_t i, Segment& sums, int64_t count, bool wide) { store_some(y + i, sums.value, count, wide); });
}

KERNEL(MMA_THREADS)
matmul_gelu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C, float* workspace, int32_t phase, int32_t slice_count) {
    forward(x, weight, bias, N, O, C, {workspace, phase, slice_count},
            [=](int64_t i, Segment& sums, int64_t count, bool wide) {
                store_some(hidden + i, sums.value, count, wide);
                for (float& value : sums.value) value = gelu(value);
                store_some(y + i, sums.value, count, wide);
            });
}

KERNEL(MMA_THREADS)
matmul_relu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C, float* workspace, int32_t phase, int32_t slice_count) {
    forward(x, weight, bias, N, O, C, {workspace, phase, slice_count},
            [=](int64_t i, Segment& sums, int64_t count, bool wide) {
                store_some(hidden + i, sums.value, count, wide);
                for (float& value : sums.value) value = fmaxf(value, 0.0f);
                store_some(y + i, sums.value, count, wide);
            });
}

KERNEL(MMA_THREADS)
matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O, float* workspace,
                      int32_t phase, int32_t slice_count) {
    auto fetch_nothing = [](int64_t, int64_t, int64_t, bool) { return Nothing{}; };
    auto store = [=](int64_t n, int64_t c, Segment& sums, Nothing, int64_t count, bool wide) {
        store_some(dx + n * C + c, sums.value, count, wide);
    };
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, false>::run({dy, O}, {weight, C}, N, C, O, fused(fetch_nothing, store), NoRowSums{}, split_k);
}

KERNEL(MMA_THREADS)
matmul_gelu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N, int64_t C,
                           int64_t O, float* workspace, int32_t phase, int32_t slice_count) {
    backward_input(dhidden, dy, weight, hidden, N, C, O, {workspace, phase, slice_count},
                   [](float gradient, float before) { return gradient * gelu_derivative(before); });
}

KERNEL(MMA_THREADS)
matmul_relu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N, int64_t C,
                           int64_t O, float* workspace, int32_t phase, int32_t slice_count) {
    backward_input(dhidden, dy, weight, hidden, N, C, O, {workspace, phase, slice_count},
                   [](float gradient, float before) { return before > 0.0f ? gradient : 0.0f; });
}

// dbias = the sums of A's rows, because A is dy^T.
KERNEL(MMA_THREADS)
matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C, int64_t N,
                       float* workspace, int32_t phase, int32_t slice_count) {
    auto fetch = [=](int64_t o, int64_t c, int64_t count, bool wide) {
        Segment before;
        load_some(before.value, dweight + o * C + c, count, wide);
        return before;
    };
    auto add = [=](int64_t o, int64_t c, Segment& sums, const Segment& before, int64_t count, bool wide) {
        for (int i = 0; i < WIDTH; ++i) sums.value[i] += before.value[i];
        store_some(dweight + o * C + c, sums.value, count, wide);
    };
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<false, false>::run({dy, O}, {x, C}, O, C, N, fused(fetch, add), AddRowSums{dbias}, split_k);
}

// block_weights: the gradients of the weights and biases of a block's linear layers, each as matmul_backward_weight of
// matmul_tma.hip, all in one launch. One of them alone seldom has as many tiles as there are clusters of blocks.
// Grid: min(TMA_CLUSTERS, tiles * slices) clusters of two blocks.
#include "gpu/gemm/linear_layer.h"
#include "gpu/gemm/mainloop_tma.h"

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
block_weights(float* dmlp_out, float* dmlp_out_bias, float* dmlp_in, float* dmlp_in_bias, float* dprojection,
              float* dprojection_bias, float* dqkv_weight, float* dqkv_bias, const act* dy, const act* active,
              const act* dhidden, const act* mlp_norm, const act* dmiddle, const act* attention, const act* dqkv,
              const act* norm, int64_t C, int64_t F, int64_t G, int64_t A, int64_t Q, int64_t N, float* workspace,
              int32_t phase, int32_t slice_count, TENSOR_MAP dy_map, TENSOR_MAP active_map, TENSOR_MAP dhidden_map,
              TENSOR_MAP mlp_norm_map, TENSOR_MAP dmiddle_map, TENSOR_MAP attention_map, TENSOR_MAP dqkv_map,
              TENSOR_MAP norm_map) {
    using Transposed = Gemm<false, false>;  // dweight (O, C) += dy^T x, dbias (O) += the sums of dy^T's rows
    using Gradient = Transposed::Product<decltype(backward_weight_operation(nullptr, 0)), AddRowSums>;
    auto gradient = [](float* dweight, float* dbias, const TensorMap& dy, const TensorMap& x, int64_t O, int64_t C) {
        return Gradient{&dy, &x, O, C, backward_weight_operation(dweight, C), AddRowSums{dbias}};
    };
    const PersistentSchedule<4> schedule({{C, F}, {G, C}, {C, A}, {Q, C}}, N, slice_count);
    auto gradients = [&](int gemm) {
        if (gemm == 0) return gradient(dmlp_out, dmlp_out_bias, dy_map, active_map, C, F);
        if (gemm == 1) return gradient(dmlp_in, dmlp_in_bias, dhidden_map, mlp_norm_map, G, C);
        if (gemm == 2) return gradient(dprojection, dprojection_bias, dmiddle_map, attention_map, C, A);
        return gradient(dqkv_weight, dqkv_bias, dqkv_map, norm_map, Q, C);
    };
    Transposed::run(schedule, gradients, N, SplitK{workspace, phase, slice_count});
}

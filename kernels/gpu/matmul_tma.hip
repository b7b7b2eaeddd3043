// The GEMMs of a linear layer in bf16 on Hopper, for large sizes: formulas and layouts as in matmul.hip, operands
// through the copy engine, persistent blocks. See gemm/mainloop_tma.h; the fused operations are those of matmul_mma.hip.
//
// All sizes are multiples of WIDTH, because rows of a tensor map are multiples of 16 bytes apart.
// Grid: TMA_CLUSTERS clusters of two blocks, or as many as there are tiles for them.
#include "gpu/gemm/mainloop_tma.h"
#include "gpu/gemm/linear_layer.h"

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C,
               float* workspace, int32_t phase, int32_t slice_count, TENSOR_MAP x_map, TENSOR_MAP weight_map,
               TENSOR_MAP y_map) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, true>::run(x_map, weight_map, N, O, C, forward_operation(y, bias, O), NoRowSums{}, split_k, y_map);
}

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
matmul_gelu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C, float* workspace, int32_t phase, int32_t slice_count, TENSOR_MAP x_map,
                    TENSOR_MAP weight_map, TENSOR_MAP y_map, TENSOR_MAP slope_map) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, true>::run(x_map, weight_map, N, O, C, gelu_forward_operation(y, slope, bias, O), NoRowSums{}, split_k,
                          y_map, slope_map);
}

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
matmul_relu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C, float* workspace, int32_t phase, int32_t slice_count, TENSOR_MAP x_map,
                    TENSOR_MAP weight_map, TENSOR_MAP y_map, TENSOR_MAP slope_map) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, true>::run(x_map, weight_map, N, O, C, relu_forward_operation(y, slope, bias, O), NoRowSums{}, split_k,
                          y_map, slope_map);
}

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
matmul_relu2_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                     int64_t C, float* workspace, int32_t phase, int32_t slice_count, TENSOR_MAP x_map,
                     TENSOR_MAP weight_map, TENSOR_MAP y_map, TENSOR_MAP slope_map) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, true>::run(x_map, weight_map, N, O, C, relu2_forward_operation(y, slope, bias, O), NoRowSums{}, split_k,
                          y_map, slope_map);
}

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O, float* workspace,
                      int32_t phase, int32_t slice_count, TENSOR_MAP dy_map, TENSOR_MAP weight_map, TENSOR_MAP dx_map) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, false>::run(dy_map, weight_map, N, C, O, store_operation(dx, C), NoRowSums{}, split_k, dx_map);
}

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
matmul_activation_backward_input(act* dhidden, const act* dy, const act* weight, const act* slope, int64_t N, int64_t C,
                                 int64_t O, float* workspace, int32_t phase, int32_t slice_count, TENSOR_MAP dy_map,
                                 TENSOR_MAP weight_map, TENSOR_MAP dhidden_map) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, false>::run(dy_map, weight_map, N, C, O, activation_backward_operation(dhidden, slope, C), NoRowSums{},
                           split_k, dhidden_map);
}

// dbias = the sums of A's rows, because A is dy^T.
PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C, int64_t N,
                       float* workspace, int32_t phase, int32_t slice_count, TENSOR_MAP dy_map, TENSOR_MAP x_map) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<false, false>::run(dy_map, x_map, O, C, N, backward_weight_operation(dweight, C), AddRowSums{dbias}, split_k);
}

// The GEMMs of a linear layer in bf16 by matrix instructions: formulas and layouts as in matmul.hip.
//
// One GEMM, C (M, N) = A (M, K) B (N, K)^T, serves all of them: Gemm<A_K_CONTIGUOUS, B_K_CONTIGUOUS>::run of
// select/mainloop.h, whose parameters say how A and B are stored. Sums in f32; activation functions, biases and the
// addition to dweight are fused into the epilogue: gemm/linear_layer.h. Grid ceil(N / BLOCK_TILE) x ceil(M / BLOCK_TILE):
// a block computes one block tile. BLOCK_TILE is 128, 64 or 32, so that small GEMMs give the chip enough blocks too. A
// GEMM with a long K and still too few blocks takes two launches and a workspace: see gemm/split_k.h.
#include "gpu/select/mainloop.h"
#include "gpu/gemm/linear_layer.h"

GEMM_KERNEL
matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C,
               float* workspace, int32_t phase, int32_t slice_count) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, true>::run({x, C}, {weight, C}, N, O, C, forward_operation(y, bias, O), NoRowSums{}, split_k);
}

GEMM_KERNEL
matmul_gelu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C, float* workspace, int32_t phase, int32_t slice_count) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, true>::run({x, C}, {weight, C}, N, O, C, gelu_forward_operation(y, slope, bias, O), NoRowSums{},
                          split_k);
}

GEMM_KERNEL
matmul_relu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C, float* workspace, int32_t phase, int32_t slice_count) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, true>::run({x, C}, {weight, C}, N, O, C, relu_forward_operation(y, slope, bias, O), NoRowSums{},
                          split_k);
}

GEMM_KERNEL
matmul_relu2_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                     int64_t C, float* workspace, int32_t phase, int32_t slice_count) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, true>::run({x, C}, {weight, C}, N, O, C, relu2_forward_operation(y, slope, bias, O), NoRowSums{},
                          split_k);
}

GEMM_KERNEL
matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O, float* workspace,
                      int32_t phase, int32_t slice_count) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, false>::run({dy, O}, {weight, C}, N, C, O, store_operation(dx, C), NoRowSums{}, split_k);
}

GEMM_KERNEL
matmul_activation_backward_input(act* dhidden, const act* dy, const act* weight, const act* slope, int64_t N, int64_t C,
                                 int64_t O, float* workspace, int32_t phase, int32_t slice_count) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<true, false>::run({dy, O}, {weight, C}, N, C, O, activation_backward_operation(dhidden, slope, C), NoRowSums{},
                           split_k);
}

// dbias = the sums of A's rows, because A is dy^T.
GEMM_KERNEL
matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C, int64_t N,
                       float* workspace, int32_t phase, int32_t slice_count) {
    const SplitK split_k = {workspace, phase, slice_count};
    Gemm<false, false>::run({dy, O}, {x, C}, O, C, N, backward_weight_operation(dweight, C), AddRowSums{dbias},
                            split_k);
}

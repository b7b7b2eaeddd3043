// token_layers_weights: the gradients of the weights and biases of the layers between two attentions, each as
// matmul_backward_weight of matmul_tma.hip, all in one launch. Each of them alone has tiles for a few of the clusters.
//
// The clusters of blocks take the items of work of one gradient after another, one item each. hipgpt/compute/backends/
// grouped_gemm.py decides on the number of slices, which is that of all four.
#include "gpu/gemm/linear_layer.h"
#include "gpu/gemm/mainloop_tma.h"

// dweight (O, C) += dy^T x, dbias (O) += the sums of dy's columns.
struct WeightGradient {
    float *dweight, *dbias;
    const TensorMap *dy, *x;
    int64_t O, C;
};

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
token_layers_weights(float* dmlp_out, float* dmlp_out_bias, float* dmlp_in, float* dmlp_in_bias, float* dprojection,
                     float* dprojection_bias, float* dqkv_weight, float* dqkv_bias, const act* dy, const act* active,
                     const act* dhidden, const act* mlp_norm, const act* dmiddle, const act* attention, const act* dqkv,
                     const act* norm, int64_t C, int64_t F, int64_t Q, int64_t N, float* workspace, int32_t phase,
                     int32_t slice_count, TENSOR_MAP dy_map, TENSOR_MAP active_map, TENSOR_MAP dhidden_map,
                     TENSOR_MAP mlp_norm_map, TENSOR_MAP dmiddle_map, TENSOR_MAP attention_map, TENSOR_MAP dqkv_map,
                     TENSOR_MAP norm_map) {
    using Product = Gemm<false, false>;
    const WeightGradient gradients[] = {{dmlp_out, dmlp_out_bias, &dy_map, &active_map, C, F},
                                        {dmlp_in, dmlp_in_bias, &dhidden_map, &mlp_norm_map, F, C},
                                        {dprojection, dprojection_bias, &dmiddle_map, &attention_map, C, C},
                                        {dqkv_weight, dqkv_bias, &dqkv_map, &norm_map, Q, C}};
    constexpr int ADDERS = Product::ADDERS * TMA_CLUSTER;  // of a cluster's tile
    const int thread = blockIdx.x * TMA_THREADS + threadIdx.x, each = phase == ADD_SLICES ? 1 : slice_count;
    int item = phase == ADD_SLICES ? thread / ADDERS : blockIdx.x / TMA_CLUSTER, tiles_before = 0;
    WeightGradient of = gradients[0];
#pragma unroll
    for (int i = 1; i < 4; ++i) {
        const PersistentSchedule last(of.O, of.C, N, slice_count);
        const int tiles = last.rows * last.columns;
        if (item < tiles * each) break;
        item -= tiles * each;
        tiles_before += tiles;
        of = gradients[i];
    }
    PersistentSchedule schedule(of.O, of.C, N, slice_count);
    schedule.item = item;
    const SplitK split_k = {workspace + int64_t{tiles_before} * slice_count * TMA_CLUSTER * Slot::SIZE, phase,
                            slice_count};
    Product::run(schedule, thread - tiles_before * ADDERS, *of.dy, *of.x, of.O, of.C, N,
                 backward_weight_operation(of.dweight, of.C), AddRowSums{of.dbias}, split_k);
}

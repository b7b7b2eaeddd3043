// cross_entropy_training for large vocabularies: formulas and layouts as in cross_entropy.hip.
// Grid N, a block of ROW_THREADS per row. So few rows are computed at once that all of them stay in L2 between the pass
// that sums and the pass that differentiates. Minimum traffic: 2*N*V*sizeof(act) + 8*N bytes.
#include "gpu/simt/row_softmax.h"

KERNEL(ROW_THREADS)
cross_entropy_training(float* losses, act* logits, const int32_t* targets, int64_t N, int64_t V, float scale) {
    const int64_t n = blockIdx.x;
    const float loss = train_on_row<ROW_THREADS>(logits + n * V, logits + n * V, targets[n], V, scale);
    if (threadIdx.x == 0) losses[n] = loss;
}

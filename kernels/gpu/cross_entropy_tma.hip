// cross_entropy_training for large vocabularies on Hopper: formulas and layouts as in cross_entropy.hip.
// The copy engine brings a row into shared memory, where it is read twice. Two blocks share a multiprocessor, so that one
// computes while the other's row is on its way.
// Grid N, a block of TMA_ROW_THREADS per row; V is a multiple of WIDTH. Minimum traffic: 2*N*V*sizeof(act) + 8*N bytes.
#include "gpu/hopper/tensor_map.h"
#include "gpu/simt/row_softmax.h"

KERNEL(TMA_ROW_THREADS)
cross_entropy_training(float* losses, act* logits, const int32_t* targets, int64_t N, int64_t V, float scale) {
    extern __shared__ __align__(128) unsigned char bytes[];
    __shared__ Barrier arrived;
    act *row = logits + blockIdx.x * V, *staged = reinterpret_cast<act*>(bytes);
    if (threadIdx.x == 0) {
        arrived.init(1);
        fence_barrier_init();
        arrived.arrive_expecting(static_cast<int>(V) * 2);
        copy_bytes(staged, row, static_cast<int>(V) * 2, arrived);
    }
    __syncthreads();
    arrived.wait(0);
    const float loss = train_on_row<TMA_ROW_THREADS>(row, staged, targets[blockIdx.x], V, scale);
    if (threadIdx.x == 0) losses[blockIdx.x] = loss;
}

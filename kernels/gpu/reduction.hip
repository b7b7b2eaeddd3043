// add_sum: total += scale * sum of values (N), f32. One block.
// sum_of_squares: partials[k] = sum of squares of gradients (P) f32 over part k of K equal parts. Grid K, a block
// per part.
// gradient_norm: norm = sqrt(sum of partials (K)). One block.
// Sums in f64. Minimum traffic: 4*N, 4*P and 4*K bytes.
#include "gpu/simt/reduce.h"
#include "gpu/launch_shapes.h"

KERNEL(THREADS) add_sum(float* total, const float* values, int64_t N, float scale) {
    double sum = 0.0;
#pragma unroll 8  // so many loads are under way
    for (int64_t i = threadIdx.x; i < N; i += THREADS) sum += values[i];
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) *total += static_cast<float>(scale * sum);
}

KERNEL(THREADS) sum_of_squares(float* partials, const float* gradients, int64_t K, int64_t P) {
    const int64_t size = (P + K - 1) / K, begin = blockIdx.x * size, end = begin + size < P ? begin + size : P;
    double sum = 0.0;
    for (int64_t i = begin + threadIdx.x; i < end; i += THREADS)
        sum += static_cast<double>(gradients[i]) * gradients[i];
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = static_cast<float>(sum);
}

KERNEL(THREADS) gradient_norm(float* norm, const float* partials, int64_t K) {
    double sum = 0.0;
    for (int64_t k = threadIdx.x; k < K; k += THREADS) sum += partials[k];
    sum = block_sum<THREADS>(sum);
    if (threadIdx.x == 0) *norm = static_cast<float>(sqrt(sum));
}

// gelu_forward, gelu_backward, relu_forward, relu_backward: formulas in kernels/scalar.h.
// Grid ceil(N / THREADS), a thread an element.
#include "platform.h"
#include "scalar.h"

constexpr int THREADS = 256;

KERNEL(THREADS) gelu_forward(float* y, const float* x, int64_t N) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < N) y[i] = gelu(x[i]);
}

KERNEL(THREADS) gelu_backward(float* gradient, const float* x, int64_t N) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < N) gradient[i] *= gelu_derivative(x[i]);
}

KERNEL(THREADS) relu_forward(float* y, const float* x, int64_t N) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < N) y[i] = x[i] > 0.0f ? x[i] : 0.0f;
}

KERNEL(THREADS) relu_backward(float* gradient, const float* x, int64_t N) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < N) gradient[i] = x[i] > 0.0f ? gradient[i] : 0.0f;
}

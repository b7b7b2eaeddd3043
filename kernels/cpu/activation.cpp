// gelu_forward: y = gelu(x), the tanh form of scalar.h; gelu_backward: gradient *= gelu'(x), in place.
// relu_forward: y = max(x, 0);                          relu_backward: gradient = 0 where x <= 0, in place.
// All (N). Minimum traffic: 8*N bytes forward, 12*N backward.
#include "../scalar.h"
#include "parallel.h"

constexpr int64_t GRAIN = 4096;

extern "C" void gelu_forward(float* y, const float* x, int64_t N) {
    parallel_ranges(N, GRAIN, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) y[i] = gelu(x[i]);
    });
}

extern "C" void gelu_backward(float* gradient, const float* x, int64_t N) {
    parallel_ranges(N, GRAIN, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i) gradient[i] *= gelu_derivative(x[i]);
    });
}

extern "C" void relu_forward(float* y, const float* x, int64_t N) {
    parallel_ranges(N, GRAIN, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) y[i] = x[i] > 0 ? x[i] : 0;
    });
}

extern "C" void relu_backward(float* gradient, const float* x, int64_t N) {
    parallel_ranges(N, GRAIN, [=](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) gradient[i] = x[i] > 0 ? gradient[i] : 0;
    });
}

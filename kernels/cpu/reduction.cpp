// add_sum: total += scale * sum of values (N).
// sum_of_squares: partials[k] = the sum of squares of slice k of gradients (P), which is cut into K equal slices. The
//   order of the whole sum depends on K and P alone, never on the number of threads.
// gradient_norm: norm = sqrt(sum of partials (K)).
// Values in f32, sums in f64. Minimum traffic: 4*P bytes.
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include <cmath>

// Independent sums, because with a single one each addition would wait for the one before.
constexpr int64_t SUMS = 64;
constexpr int64_t PREFETCH_DISTANCE = 2048;  // in floats

extern "C" void add_sum(float* total, const float* values, int64_t N, float scale) {
    double sum = 0;
    for (int64_t i = 0; i < N; ++i) sum += values[i];
    *total += static_cast<float>(scale * sum);
}

extern "C" void sum_of_squares(float* partials, const float* gradients, int64_t K, int64_t P) {
    const int64_t slice_size = (P + K - 1) / K;
    parallel_ranges(K, worth_a_thread(slice_size), [=](int64_t begin, int64_t end) {
        for (int64_t k = begin; k < end; ++k) {
            const int64_t last = std::min(P, (k + 1) * slice_size);
            double sums[SUMS] = {}, sum = 0;
            int64_t i = k * slice_size;
            for (; i + SUMS <= last; i += SUMS) {
                for (int64_t lane = 0; lane < SUMS; lane += 16)
                    __builtin_prefetch(gradients + i + PREFETCH_DISTANCE + lane);
#pragma omp simd
                for (int64_t lane = 0; lane < SUMS; ++lane)
                    sums[lane] += static_cast<double>(gradients[i + lane]) * gradients[i + lane];
            }
            for (; i < last; ++i) sum += static_cast<double>(gradients[i]) * gradients[i];
            for (const double& lane : sums) sum += lane;
            partials[k] = static_cast<float>(sum);
        }
    });
}

extern "C" void gradient_norm(float* norm, const float* partials, int64_t K) {
    double sum = 0;
    for (int64_t k = 0; k < K; ++k) sum += partials[k];
    *norm = static_cast<float>(std::sqrt(sum));
}

CALLABLE(add_sum)
CALLABLE(sum_of_squares)
CALLABLE(gradient_norm)

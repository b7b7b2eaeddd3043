// adamw: one step of AdamW (scalar.h) over a run of parameters (P), gradients first scaled by min(1, clip_norm / norm).
// schedule (3): learning rate, 1 / (1 - beta1^step), 1 / (1 - beta2^step): on the device, so that a recorded plan sees each
// step's own. Minimum traffic: 28*P bytes.
//
// record_step: history[step % K] = (loss, norm), so that the host reads K steps' figures at once. counters: see dropout.
#include "../scalar.h"
#include "parallel.h"

extern "C" void adamw(float* weights, float* first_moment, float* second_moment, const float* gradients,
                      const float* norm, const float* schedule, int64_t P, float beta1, float beta2, float epsilon,
                      float weight_decay, float clip_norm) {
    const float ratio = clip_norm / *norm;
    const AdamwSettings settings = {schedule[0], schedule[1], schedule[2],  beta1,
                                    beta2,       epsilon,     weight_decay, ratio < 1.0f ? ratio : 1.0f};
    parallel_ranges(P, 4096, [=](int64_t begin, int64_t end) {
#pragma omp simd
        for (int64_t i = begin; i < end; ++i)
            adamw_element(weights[i], first_moment[i], second_moment[i], gradients[i], settings);
    });
}

extern "C" void record_step(float* history, const float* loss, const float* norm, const int32_t* counters, int64_t K) {
    float* row = history + counters[2] % K * 2;
    row[0] = *loss;
    row[1] = *norm;
}

// Formulas in kernels/cpu/optimizer.cpp. adamw, round_weights: grid ceil(P / THREADS), a thread a parameter. record_step: one
// thread.
#include "platform.h"
#include "values.h"
#include "formulas.h"

constexpr int THREADS = 256;

KERNEL(THREADS) adamw(float* weights, float* first_moment, float* second_moment, float* gradients, act* copy, const float* norm,
                      const float* schedule, const int32_t* counters, int64_t P, int64_t K, float beta1, float beta2,
                      float epsilon, float weight_decay, float clip_norm, int32_t decayed) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i >= P) return;
    const float ratio = clip_norm / *norm, *rates = schedule + counters[2] % K * 3;
    const AdamwSettings settings = {rates[0], rates[1], rates[2], beta1, beta2, epsilon,
                                    i < decayed ? weight_decay : 0.0f, ratio < 1.0f ? ratio : 1.0f};
    adamw_element(weights[i], first_moment[i], second_moment[i], gradients[i], settings);
    gradients[i] = 0.0f;
    if (copy) narrow(copy[i], weights[i]);
}

KERNEL(THREADS) round_weights(act* copy, const float* weights, int64_t P) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < P) narrow(copy[i], weights[i]);
}

KERNEL(WAVE) record_step(float* history, float* loss, int32_t* counters, const float* norm, int64_t K) {
    if (threadIdx.x != 0) return;
    float* row = history + counters[2] % K * 2;
    row[0] = *loss;
    row[1] = *norm;
    *loss = 0.0f;
    ++counters[2];
    counters[3] = 0;
}

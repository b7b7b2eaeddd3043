// adamw: one step of AdamW (formulas.h) over all parameters (P), gradients first scaled by min(1, clip_norm / norm) and zero
// afterwards; weight decay acts on the first `decayed` ones. copy (P) or null: the new weights in the activations' dtype.
// schedule (K, 3): row step % K holds learning rate, 1 / (1 - beta1^step), 1 / (1 - beta2^step): on the device, so that a
// recorded plan sees each step's own. counters: see dropout. Minimum traffic: 32*P bytes.
//
// round_weights: copy = weights. record_step: history[step % K] = (loss, norm), so that the host reads K steps' figures at
// once; then loss = 0, and the counters go on to micro step 0 of the next step.
#include "formulas.h"
#include "cpu/runtime/call.h"
#include "cpu/select/convert.h"
#include "cpu/runtime/parallel.h"
#include "cpu/simd/vector.h"

constexpr int64_t BLOCK = 128;  // parameters at a time

extern "C" void adamw(float* weights, float* first_moment, float* second_moment, float* gradients, act* copy,
                      const float* norm, const float* schedule, const int32_t* counters, int64_t P, int64_t K, float beta1,
                      float beta2, float epsilon, float weight_decay, float clip_norm, int32_t decayed) {
    const float ratio = clip_norm / *norm, *rates = schedule + counters[2] % K * 3;
    parallel_ranges(P, worth_a_thread(8), [=](int64_t begin, int64_t end) {
        int64_t last;
        for (int64_t first = begin; first < end; first = last) {  // the copy is made while a block is in the first cache
            const bool decays = first < decayed;
            last = std::min({first + BLOCK, end, decays ? int64_t{decayed} : end});
            const AdamwSettings settings = {rates[0], rates[1], rates[2], beta1, beta2, epsilon,
                                            decays ? weight_decay : 0.0f, ratio < 1.0f ? ratio : 1.0f};
            // hardware alone fetches too late from four places
            for (const float* stream : {weights, first_moment, second_moment, gradients})
                for (int64_t i = 0; i < BLOCK; i += LINE) __builtin_prefetch(stream + first + BLOCK + i, 1);
#pragma omp simd
            for (int64_t i = first; i < last; ++i) {
                adamw_element(weights[i], first_moment[i], second_moment[i], gradients[i], settings);
                gradients[i] = 0.0f;
            }
            if (copy) store(copy + first, weights + first, last - first);
        }
    });
}

extern "C" void round_weights(act* copy, const float* weights, int64_t P) { store(copy, weights, P); }

extern "C" void record_step(float* history, float* loss, int32_t* counters, const float* norm, int64_t K) {
    float* row = history + counters[2] % K * 2;
    row[0] = *loss;
    row[1] = *norm;
    *loss = 0.0f;
    ++counters[2];
    counters[3] = 0;
}

CALLABLE(adamw)
CALLABLE(round_weights)
CALLABLE(record_step)

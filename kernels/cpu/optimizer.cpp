// adamw: one step of AdamW (formulas.h) over all parameters (P), f32. Gradients are first scaled by
//   min(1, clip_norm / norm), and set to 0 afterwards. Weight decay applies to the first `decayed` parameters.
//   copy (P), act, or null: the new weights rounded to the dtype of activations.
//   schedule (K, 3): ScheduleRow; a step reads row step % K.
//   Minimum traffic: 32*P bytes, and P*sizeof(act) for the copy.
// round_weights: copy = weights.
// widen_gradients: gradients = rounded.
// record_step: history[step % K] (HistoryRow) = (loss, norm), so that the host can read K steps at once. Then loss = 0,
//   and the counters (StepState) move to micro-batch 0 of the next step.
#include "formulas.h"
#include "step_state.h"
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/convert.h"
#include "cpu/simd/vector.h"

constexpr int64_t BLOCK = 128;  // parameters, few enough that a block's copy is made while the block is in L1

extern "C" void adamw(float* weights, float* first_moment, float* second_moment, float* gradients, act* copy,
                      const float* norm, const float* schedule, const int32_t* counters, int64_t P, int64_t K,
                      float beta1, float beta2, float epsilon, float weight_decay, float clip_norm, int32_t decayed) {
    const StepState& now = *reinterpret_cast<const StepState*>(counters);
    const ScheduleRow rates = reinterpret_cast<const ScheduleRow*>(schedule)[now.step % K];
    const float clip_factor = clip_norm / *norm;
    parallel_ranges(P, worth_a_thread(8), [=](int64_t begin, int64_t end) {
        int64_t last;
        for (int64_t first = begin; first < end; first = last) {
            const bool decays = first < decayed;
            last = std::min({first + BLOCK, end, decays ? int64_t{decayed} : end});
            const AdamwSettings settings = {rates.learning_rate,
                                            rates.first_moment_correction,
                                            rates.second_moment_correction,
                                            beta1,
                                            beta2,
                                            epsilon,
                                            decays ? weight_decay : 0.0f,
                                            clip_factor < 1.0f ? clip_factor : 1.0f};
            // the hardware prefetcher alone is too late for four streams
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

extern "C" void widen_gradients(float* gradients, const act* rounded, int64_t P) { load(gradients, rounded, P); }

extern "C" void record_step(float* history, float* loss, int32_t* counters, const float* norm, int64_t K) {
    StepState& now = *reinterpret_cast<StepState*>(counters);
    reinterpret_cast<HistoryRow*>(history)[now.step % K] = {*loss, *norm};
    *loss = 0.0f;
    ++now.step;
    now.micro_step = 0;
}

CALLABLE(adamw)
CALLABLE(round_weights)
CALLABLE(widen_gradients)
CALLABLE(record_step)

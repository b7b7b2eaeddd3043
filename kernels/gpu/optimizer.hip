// adamw: one AdamW step on P parameters, gradients clipped to a global norm of clip_norm: adamw_element in formulas.h.
// Row `step mod K` of schedule (K, 3), a ScheduleRow, has the learning rate and the bias corrections. The first
// `decayed` parameters have weight decay. Gradients are zeroed for the next step; copy, if any, receives the rounded
// weights.
// weights, first_moment, second_moment, gradients (P) f32; copy (P), act; norm (1) f32.
// Grid ceil(P / THREADS), a thread per parameter. Minimum traffic: 32*P + P*sizeof(act) bytes.
// Loshchilov & Hutter 2019, arXiv:1711.05101.
//
// round_weights: copy = weights rounded to act. The same grid. Minimum traffic: 4*P + P*sizeof(act) bytes.
//
// widen_gradients: gradients = rounded in f32. The same grid and traffic.
//
// record_step: row `step mod K` of history (K, 2), a HistoryRow, = (loss, norm); then loss = 0, ++step, micro_step = 0.
// One thread.
#include "gpu/simt/vector_io.h"
#include "formulas.h"
#include "step_state.h"

KERNEL(THREADS)
adamw(float* weights, float* first_moment, float* second_moment, float* gradients, act* copy, const float* norm,
      const float* schedule, const int32_t* counters, int64_t P, int64_t K, float beta1, float beta2, float epsilon,
      float weight_decay, float clip_norm, int32_t decayed) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i >= P) return;
    const float ratio = clip_norm / *norm;
    const StepState& state = *reinterpret_cast<const StepState*>(counters);
    const ScheduleRow& row = reinterpret_cast<const ScheduleRow*>(schedule)[state.step % K];
    const AdamwSettings settings = {
        row.learning_rate, row.first_moment_correction,       row.second_moment_correction, beta1, beta2,
        epsilon,           i < decayed ? weight_decay : 0.0f, ratio < 1.0f ? ratio : 1.0f};
    adamw_element(weights[i], first_moment[i], second_moment[i], gradients[i], settings);
    gradients[i] = 0.0f;
    if (copy) narrow(copy[i], weights[i]);
}

KERNEL(THREADS) round_weights(act* copy, const float* weights, int64_t P) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < P) narrow(copy[i], weights[i]);
}

KERNEL(THREADS) widen_gradients(float* gradients, const act* rounded, int64_t P) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < P) gradients[i] = widen(rounded[i]);
}

KERNEL(WAVE) record_step(float* history, float* loss, int32_t* counters, const float* norm, int64_t K) {
    if (threadIdx.x != 0) return;
    StepState& state = *reinterpret_cast<StepState*>(counters);
    HistoryRow& row = reinterpret_cast<HistoryRow*>(history)[state.step % K];
    row.loss = *loss;
    row.gradient_norm = *norm;
    *loss = 0.0f;
    ++state.step;
    state.micro_step = 0;
}

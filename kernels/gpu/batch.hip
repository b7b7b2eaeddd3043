// advance: ++micro_step of the StepState in `counters`. One thread.
//
// build_batch: tokens[b, s] = corpus[start + s] and targets[b, s] = corpus[start + s + 1], where
// start = window_starts[r, b] and r = (step * accumulation_steps + micro_step) mod K, by the StepState in `counters`.
// tokens, targets (B, S), corpus (T), window_starts (K, B), all i32. Grid ceil(B*S / THREADS), a thread per token.
// Minimum traffic: 12*B*S + 4*B bytes.
#include "gpu/select/platform.h"
#include "gpu/launch_shapes.h"
#include "step_state.h"

KERNEL(WAVE) advance(int32_t* counters) {
    if (threadIdx.x == 0) ++reinterpret_cast<StepState*>(counters)->micro_step;
}

KERNEL(THREADS)
build_batch(int32_t* tokens, int32_t* targets, const int32_t* corpus, const int32_t* window_starts,
            const int32_t* counters, int64_t B, int64_t S, int64_t T, int64_t K, int32_t accumulation_steps) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i >= B * S) return;
    const StepState& state = *reinterpret_cast<const StepState*>(counters);
    const int64_t row = (int64_t{state.step} * accumulation_steps + state.micro_step) % K;
    const int64_t index = window_starts[row * B + i / S] + i % S;
    tokens[i] = corpus[index];
    targets[i] = corpus[index + 1];
}

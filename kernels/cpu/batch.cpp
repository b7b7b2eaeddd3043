// advance: moves the counters (StepState) to the next micro-batch.
//
// build_batch: reads row (step * accumulation_steps + micro_step) % K of window_starts (K, B). Each of its B entries w
// is a window of the corpus: tokens[b,s] = corpus[w + s], targets[b,s] = corpus[w + s + 1].
// Minimum traffic: 16*B*S bytes.
#include "step_state.h"
#include "cpu/runtime/call.h"
#include <cstdint>

extern "C" void advance(int32_t* counters) { ++reinterpret_cast<StepState*>(counters)->micro_step; }

extern "C" void build_batch(int32_t* tokens, int32_t* targets, const int32_t* corpus, const int32_t* window_starts,
                            const int32_t* counters, int64_t B, int64_t S, int64_t /*T*/, int64_t K,
                            int32_t accumulation_steps) {
    const StepState& now = *reinterpret_cast<const StepState*>(counters);
    const int64_t row = (int64_t{now.step} * accumulation_steps + now.micro_step) % K;
    for (int64_t i = 0; i < B * S; ++i) {
        const int64_t index = window_starts[row * B + i / S] + i % S;
        tokens[i] = corpus[index];
        targets[i] = corpus[index + 1];
    }
}

CALLABLE(advance)
CALLABLE(build_batch)

// zero: x = 0. x (N), act. Minimum traffic: N*sizeof(act) bytes.
//
// dropout: y = x / (1 - drop_probability) for the elements that survive, otherwise 0. x, y (N), act.
// Element i survives if, with key = (seed_low, seed_high) and counter = (first_quad + i / 4, stream, step, micro_step),
//   philox(counter, key).word[i % 4] >= drop_probability * 2^32.
// The mask depends on nothing but `counters` (StepState) and these numbers, so the
// backward pass and a resumed run draw the same mask, and none is stored. 4 * first_quad + N < 2^33.
// Minimum traffic: 2*N*sizeof(act) bytes. Srivastava et al. 2014, "Dropout".
#include "formulas.h"
#include "step_state.h"
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/act.h"

extern "C" void zero(act* x, int64_t N) {
    parallel_ranges(N, worth_a_thread(1), [=](int64_t begin, int64_t end) { std::fill(x + begin, x + end, 0.0f); });
}

extern "C" void dropout(act* y, const act* x, const int32_t* counters, int64_t N, float drop_probability,
                        int32_t stream, int32_t first_quad) {
    const auto threshold = static_cast<uint32_t>(static_cast<double>(drop_probability) * 4294967296.0);
    const float scale = 1.0f / (1.0f - drop_probability);
    const StepState now = *reinterpret_cast<const StepState*>(counters);
    parallel_ranges((N + 3) / 4, worth_a_thread(32), [=](int64_t begin, int64_t end) {
        for (int64_t quad = begin; quad < end; ++quad) {
            const Philox random = philox(static_cast<uint32_t>(first_quad + quad), stream, now.step, now.micro_step,
                                         now.seed_low, now.seed_high);
            for (int64_t i = quad * 4; i < std::min(N, quad * 4 + 4); ++i)
                y[i] = random.word[i % 4] >= threshold ? x[i] * scale : 0.0f;
        }
    });
}

CALLABLE(zero)
CALLABLE(dropout)

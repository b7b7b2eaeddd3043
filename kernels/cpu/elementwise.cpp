// zero: x = 0.
// dropout: y = x / (1 - p) where kept, else 0. Element i is kept if word i % 4 of
//   philox(counter = (first_quad + i / 4, stream, step, micro step), key = (seed low, seed high)) is at least p * 2^32:
// the backward pass and a resumed run draw the same mask from `counters` (seed low, seed high, step, micro step), and
// nothing is stored. 4 * first_quad + N < 2^33.
// All (N). Srivastava et al. 2014, "Dropout".
#include "formulas.h"
#include "cpu/runtime/call.h"
#include "cpu/select/act.h"
#include "cpu/runtime/parallel.h"

extern "C" void zero(act* x, int64_t N) {
    parallel_ranges(N, worth_a_thread(1), [=](int64_t begin, int64_t end) { std::fill(x + begin, x + end, 0.0f); });
}

extern "C" void dropout(act* y, const act* x, const int32_t* counters, int64_t N, float drop_probability,
                        int32_t stream, int32_t first_quad) {
    const auto threshold = static_cast<uint32_t>(static_cast<double>(drop_probability) * 4294967296.0);
    const float scale = 1.0f / (1.0f - drop_probability);
    const uint32_t key0 = counters[0], key1 = counters[1], step = counters[2], micro_step = counters[3];
    parallel_ranges((N + 3) / 4, worth_a_thread(32), [=](int64_t begin, int64_t end) {
        for (int64_t quad = begin; quad < end; ++quad) {
            const Philox random = philox(static_cast<uint32_t>(first_quad + quad), stream, step, micro_step, key0, key1);
            for (int64_t i = quad * 4; i < std::min(N, quad * 4 + 4); ++i)
                y[i] = random.word[i % 4] >= threshold ? x[i] * scale : 0.0f;
        }
    });
}

CALLABLE(zero)
CALLABLE(dropout)

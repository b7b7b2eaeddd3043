// advance: counters (seed low, seed high, step, micro step) go on by one micro step.
//
// build_batch: of row r = (step * accumulation_steps + micro step) % K of window_starts (K, B), with w = window_starts[r, b]:
// tokens[b, s] = corpus[w + s], targets[b, s] = corpus[w + s + 1]. Minimum traffic: 16*B*S bytes.
#include "cpu/runtime/call.h"
#include <cstdint>

extern "C" void advance(int32_t* counters) { ++counters[3]; }

extern "C" void build_batch(int32_t* tokens, int32_t* targets, const int32_t* corpus, const int32_t* window_starts,
                            const int32_t* counters, int64_t B, int64_t S, int64_t /*T*/, int64_t K,
                            int32_t accumulation_steps) {
    const int64_t row = (int64_t{counters[2]} * accumulation_steps + counters[3]) % K;
    for (int64_t i = 0; i < B * S; ++i) {
        const int64_t place = window_starts[row * B + i / S] + i % S;
        tokens[i] = corpus[place];
        targets[i] = corpus[place + 1];
    }
}

CALLABLE(advance)
CALLABLE(build_batch)

// advance: one thread. build_batch: grid ceil(B*S / THREADS), a thread a token. Formulas in kernels/cpu/batch.cpp.
#include "platform.h"

constexpr int THREADS = 256;

KERNEL(WAVE) advance(int32_t* counters) {
    if (threadIdx.x == 0) ++counters[3];
}

KERNEL(THREADS) build_batch(int32_t* tokens, int32_t* targets, const int32_t* corpus, const int32_t* window_starts,
                            const int32_t* counters, int64_t B, int64_t S, int64_t T, int64_t K, int32_t accumulation_steps) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i >= B * S) return;
    const int64_t row = (int64_t{counters[2]} * accumulation_steps + counters[3]) % K;
    const int64_t place = window_starts[row * B + i / S] + i % S;
    tokens[i] = corpus[place];
    targets[i] = corpus[place + 1];
}

// likeliest_token: formula in kernels/cpu/sampling.cpp. Grid B, a block a sequence.
#include "platform.h"
#include "reduce.h"
#include "values.h"

constexpr int THREADS = 256;

KERNEL(THREADS) likeliest_token(int32_t* tokens, int32_t* positions, const act* logits, int64_t B, int64_t V) {
    const int64_t b = blockIdx.x;
    const act* row = logits + b * V;
    float greatest = widen(row[0]);
    int64_t first = 0;
    for (int64_t v = threadIdx.x; v < V; v += THREADS)
        if (const float value = widen(row[v]); value > greatest) greatest = value, first = v;
    const bool is_greatest = greatest == block_maximum<THREADS>(greatest);
    const float place = -block_maximum<THREADS>(-static_cast<float>(is_greatest ? first : V));  // exact: V < 2^24
    if (threadIdx.x == 0) {
        tokens[b] = place < static_cast<float>(V) ? static_cast<int32_t>(place) : 0;  // NaN equals nothing
        ++positions[b];
    }
}

// likeliest_token: formula in kernels/cpu/sampling.cpp. Grid B, a block a sequence.
#include "platform.h"
#include "reduce.h"
#include "values.h"

constexpr int THREADS = 256;

KERNEL(THREADS) likeliest_token(int32_t* tokens, int32_t* positions, const act* logits, int64_t B, int64_t V) {
    const int64_t b = blockIdx.x;
    const act* row = logits + b * V;
    float greatest = -INFINITY;
    int64_t first = V;
    for (int64_t v = threadIdx.x; v < V; v += THREADS)
        if (const float value = widen(row[v]); value > greatest || first == V) greatest = value, first = v;
    const bool wins = first < V && greatest == block_maximum<THREADS>(greatest);
    const float before = block_maximum<THREADS>(wins ? -static_cast<float>(first) : -static_cast<float>(V));  // exact: V < 2^24
    if (threadIdx.x == 0) {
        tokens[b] = -before < static_cast<float>(V) ? static_cast<int32_t>(-before) : 0;  // NaN equals nothing
        ++positions[b];
    }
}

// greedy_token: greedy decoding. tokens[b] = argmax over v of logits[b, v], ties go to the lower id; ++positions[b].
// logits (B, V) row-major, act; tokens, positions (B) i32. Grid B, a block per sequence.
// Minimum traffic: B*V*sizeof(act) + 12*B bytes.
#include "gpu/simt/vector_io.h"
#include "gpu/simt/reduce.h"

KERNEL(THREADS) greedy_token(int32_t* tokens, int32_t* positions, const act* logits, int64_t B, int64_t V) {
    const int64_t b = blockIdx.x;
    const act* row = logits + b * V;
    float greatest = widen(row[0]);
    int64_t first = 0;
    for (int64_t v = threadIdx.x; v < V; v += THREADS)
        if (const float value = widen(row[v]); value > greatest) greatest = value, first = v;
    const bool is_greatest = greatest == block_maximum<THREADS>(greatest);
    // the lowest id by a maximum of negated ids, exact in f32 because V < 2^24
    const float argmax = -block_maximum<THREADS>(-static_cast<float>(is_greatest ? first : V));
    if (threadIdx.x == 0) {
        tokens[b] = argmax < static_cast<float>(V) ? static_cast<int32_t>(argmax) : 0;  // 0 if the maximum is NaN
        ++positions[b];
    }
}

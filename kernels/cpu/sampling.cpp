// greedy_token: greedy decoding. tokens[b] = argmax over v of logits[b,v], ties go to the lower id; ++positions[b].
// The next pass reads both, so decoding goes through no host code. logits (B, V), act; tokens, positions (B) i32.
// Minimum traffic: B*V*sizeof(act) bytes.
#include "cpu/runtime/call.h"
#include "cpu/select/act.h"
#include "cpu/select/convert.h"
#include "cpu/simd/maximum.h"
#include <algorithm>
#include <limits>

constexpr int64_t BLOCK = 1024;  // logits, few enough that a block stays in L1

extern "C" void greedy_token(int32_t* tokens, int32_t* positions, const act* logits, int64_t B, int64_t V) {
    float block[BLOCK];
    for (int64_t b = 0; b < B; ++b) {
        float greatest = -std::numeric_limits<float>::infinity();
        tokens[b] = 0;
        for (int64_t first = 0; first < V; first += BLOCK) {
            const int64_t count = std::min(BLOCK, V - first);
            load(block, logits + b * V + first, count);
            const float maximum = maximum_of(block, count);
            if (!(maximum > greatest)) continue;  // true for NaN
            greatest = maximum;
            tokens[b] = static_cast<int32_t>(first + (std::find(block, block + count, maximum) - block));
        }
        ++positions[b];
    }
}

CALLABLE(greedy_token)

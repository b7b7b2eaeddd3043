// greedy_token: greedy decoding. tokens[b] = argmax over v of logits[b,v], ties go to the lower id; ++positions[b].
// The next pass reads both, so decoding goes through no host code. logits (B, V), act; tokens, positions (B) i32.
// Minimum traffic: B*V*sizeof(act) bytes.
#include "cpu/runtime/call.h"
#include "cpu/select/act.h"
#include "cpu/select/convert.h"
#include "cpu/simd/maximum.h"
#include <algorithm>
#include <vector>

extern "C" void greedy_token(int32_t* tokens, int32_t* positions, const act* logits, int64_t B, int64_t V) {
    std::vector<float> row(V);
    for (int64_t b = 0; b < B; ++b) {
        load(row.data(), logits + b * V, V);
        const auto greatest = std::find(row.begin(), row.end(), maximum_of(row.data(), V));
        tokens[b] = greatest == row.end() ? 0 : static_cast<int32_t>(greatest - row.begin());  // NaN equals nothing
        ++positions[b];
    }
}

CALLABLE(greedy_token)

// likeliest_token: tokens[b] = the token of sequence b's greatest logit, of equal ones the first; ++positions[b]: what a next
// pass reads, without the host. logits (B, V); tokens, positions (B) i32. Minimum traffic: 4*B*V bytes in f32.
#include "cpu/runtime/call.h"
#include "cpu/select/act.h"
#include "cpu/select/convert.h"
#include "cpu/simd/maximum.h"
#include <algorithm>
#include <vector>

extern "C" void likeliest_token(int32_t* tokens, int32_t* positions, const act* logits, int64_t B, int64_t V) {
    std::vector<float> row(V);
    for (int64_t b = 0; b < B; ++b) {
        load(row.data(), logits + b * V, V);
        const auto found = std::find(row.begin(), row.end(), maximum_of(row.data(), V));
        tokens[b] = found == row.end() ? 0 : static_cast<int32_t>(found - row.begin());  // NaN equals nothing
        ++positions[b];
    }
}

CALLABLE(likeliest_token)

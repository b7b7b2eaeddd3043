// embedding_forward: x[b,s] = token_table[tokens[b,s]] + position_table[starts[b] + s].
// x (B, S, C), token_table (V, C), position_table (T, C) row-major, act; tokens (B, S) i32; starts (B) i32, the
// position of each sequence's first token. Minimum traffic: 3*B*S*C*sizeof(act) bytes, and the indices.
//
// embedding_backward: dtoken_table[tokens[b,s]] += dx[b,s], dposition_table[s] += dx[b,s].
// Sequences start at position 0. dtoken_table (V, C), dposition_table (T, C) f32. A thread owns some channels of all
// rows, so the rows of one token are added in the same order for any number of threads.
//
// token_embedding_forward: x[n] = token_table[tokens[n]], and token_embedding_backward: dtoken_table[tokens[n]] += dx[n],
// for models without learned positions. x, dx (N, C), act; tokens (N) i32. Minimum traffic: 2*N*C*sizeof(act) bytes and
// the indices.
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/act.h"

// The fewest channels of a range whose body visits all tokens: more ranges than threads would visit them more often.
static int64_t least_channels(int64_t C, int64_t tokens) {
    return std::max(worth_a_thread(tokens), quotient_up(C, thread_count()));
}

extern "C" void embedding_forward(act* x, const int32_t* tokens, const int32_t* starts, const act* token_table,
                                  const act* position_table, int64_t B, int64_t S, int64_t C, int64_t /*V*/,
                                  int64_t /*T*/) {
    parallel_ranges(B * S, worth_a_thread(C), [=](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const act* token = token_table + tokens[n] * C;
            const act* position = position_table + (starts[n / S] + n % S) * C;
            for (int64_t c = 0; c < C; ++c) x[n * C + c] = static_cast<float>(token[c]) + position[c];
        }
    });
}

extern "C" void embedding_backward(float* dtoken_table, float* dposition_table, const act* dx, const int32_t* tokens,
                                   int64_t /*V*/, int64_t C, int64_t /*T*/, int64_t B, int64_t S) {
    parallel_ranges(C, least_channels(C, B * S), 16, [=](int64_t begin, int64_t end) {
        for (int64_t n = 0; n < B * S; ++n) {
            float* dtoken = dtoken_table + tokens[n] * C;
            float* dposition = dposition_table + n % S * C;
            const act* row = dx + n * C;
            for (int64_t c = begin; c < end; ++c) {
                dtoken[c] += row[c];
                dposition[c] += row[c];
            }
        }
    });
}

extern "C" void token_embedding_forward(act* x, const int32_t* tokens, const act* token_table, int64_t N, int64_t C,
                                        int64_t /*V*/) {
    parallel_ranges(N, worth_a_thread(C), [=](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) std::copy_n(token_table + tokens[n] * C, C, x + n * C);
    });
}

extern "C" void token_embedding_backward(float* dtoken_table, const act* dx, const int32_t* tokens, int64_t /*V*/,
                                         int64_t C, int64_t N) {
    parallel_ranges(C, least_channels(C, N), 16, [=](int64_t begin, int64_t end) {
        for (int64_t n = 0; n < N; ++n)
            for (int64_t c = begin; c < end; ++c) dtoken_table[tokens[n] * C + c] += dx[n * C + c];
    });
}

CALLABLE(token_embedding_forward)
CALLABLE(token_embedding_backward)
CALLABLE(embedding_forward)
CALLABLE(embedding_backward)

// embedding_forward: x[b,s] = token_table[tokens[b,s]] + position_table[starts[b] + s]. Grid B*S, a block a row.
//
// embedding_backward, without atomics: grid N + S with N = B*S. Block n < N adds all rows of one token, in their order, if n is the
// first of them; block N + s adds the rows of position s. Threads run over the channels.
#include "platform.h"

constexpr int THREADS = 128;

KERNEL(THREADS) embedding_forward(float* x, const int32_t* tokens, const int32_t* starts, const float* token_table,
                                  const float* position_table, int64_t B, int64_t S, int64_t C, int64_t V, int64_t T) {
    const int64_t n = blockIdx.x;
    const float* token = token_table + tokens[n] * C;
    const float* position = position_table + (starts[n / S] + n % S) * C;
    for (int64_t c = threadIdx.x; c < C; c += THREADS) x[n * C + c] = token[c] + position[c];
}

KERNEL(THREADS) embedding_backward(float* dtoken_table, float* dposition_table, const float* dx, const int32_t* tokens,
                                   int64_t V, int64_t C, int64_t T, int64_t B, int64_t S) {
    const int64_t N = B * S, block = blockIdx.x;
    if (block >= N) {
        const int64_t s = block - N;
        for (int64_t c = threadIdx.x; c < C; c += THREADS) {
            float sum = 0.0f;
            for (int64_t b = 0; b < B; ++b) sum += dx[(b * S + s) * C + c];
            dposition_table[s * C + c] += sum;
        }
        return;
    }
    __shared__ int seen_before;
    __shared__ int32_t same[THREADS];
    if (threadIdx.x == 0) seen_before = 0;
    __syncthreads();
    const int32_t token = tokens[block];
    for (int64_t m = threadIdx.x; m < block; m += THREADS)
        if (tokens[m] == token) seen_before = 1;
    __syncthreads();
    if (seen_before) return;
    for (int64_t first = block; first < N; first += THREADS) {
        const int64_t m = first + threadIdx.x;
        same[threadIdx.x] = m < N && tokens[m] == token;
        __syncthreads();
        for (int row = 0; row < THREADS; ++row)
            if (same[row])
                for (int64_t c = threadIdx.x; c < C; c += THREADS) dtoken_table[token * C + c] += dx[(first + row) * C + c];
        __syncthreads();
    }
}

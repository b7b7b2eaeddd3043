// embedding_forward: x[b, s] = token_table[tokens[b, s]] + position_table[starts[b] + s].
// x (B, S, C), token_table (V, C), position_table (T, C) row-major, act; tokens (B, S), starts (B) i32.
// Grid B*S, a block per row of x. Minimum traffic: 3*B*S*C*sizeof(act) + 4*B*S bytes.
//
// embedding_backward: dtoken_table[tokens[b, s]] += dx[b, s]; dposition_table[s] += sum over b of dx[b, s]. f32 sums.
// Grid (ceil(V / EMBEDDING_IDS) + S) x ceil(C / EMBEDDING_THREADS), a thread per channel. A block owns EMBEDDING_IDS
// token ids: it scans all of `tokens` for them and adds their rows, in order, to sums in shared memory. The last S
// blocks own a position each. No two blocks add to the same number, so there are no atomics and the order of every sum
// is fixed.
// Minimum traffic: B*S*C*sizeof(act) + 4*B*S, and 8 bytes per element of both tables that receives a gradient.
//
// token_embedding_forward: x[n] = token_table[tokens[n]], grid N, a block per row. token_embedding_backward:
// dtoken_table[tokens[n]] += dx[n], grid ceil(V / EMBEDDING_IDS) x ceil(C / EMBEDDING_THREADS), as above. For models
// without learned positions. x, dx (N, C), act; tokens (N) i32. Minimum traffic: 2*N*C*sizeof(act) + 4*N bytes, and
// N*C*sizeof(act) + 4*N + 8 bytes per element of the table that receives a gradient.
#include "gpu/simt/vector_io.h"

constexpr int EACH = 8;       // tokens that a thread scans per turn, and table rows that it updates at once
constexpr int IN_FLIGHT = 4;  // rows of dx whose loads are issued together, because one load's latency is long
constexpr int SCANNED = EACH * EMBEDDING_THREADS, BALLOTS = SCANNED / WAVE;
static_assert(BALLOTS <= WAVE, "a lane for each ballot");

KERNEL(EMBEDDING_THREADS)
embedding_forward(act* x, const int32_t* tokens, const int32_t* starts, const act* token_table,
                  const act* position_table, int64_t B, int64_t S, int64_t C, int64_t V, int64_t T) {
    const int64_t n = blockIdx.x;
    const act* token = token_table + tokens[n] * C;
    const act* position = position_table + (starts[n / S] + n % S) * C;
    for (int64_t c = threadIdx.x; c < C; c += EMBEDDING_THREADS)
        narrow(x[n * C + c], widen(token[c]) + widen(position[c]));
}

// dtoken_table[tokens[n]] += dx[n] for the EMBEDDING_IDS tokens from `own` on, and the channel c of this thread.
DEVICE void add_token_gradients(float* dtoken_table, const act* dx, const int32_t* tokens, int64_t own, int64_t c,
                                int64_t N, int64_t C) {
    __shared__ float sums[EMBEDDING_IDS][EMBEDDING_THREADS];
    // double-buffered, so that one barrier per turn is enough
    __shared__ unsigned char own_id[2][SCANNED];  // each scanned token, relative to the block's first id
    __shared__ uint64_t ballots[2][BALLOTS];      // a bit per scanned token: set if the block owns it
    uint32_t met = 0;                             // a bit per id of the block: set if it occurs in `tokens`
    for (int id = 0; id < EMBEDDING_IDS; ++id) sums[id][threadIdx.x] = 0.0f;
    for (int64_t first = 0, turn = 0; first < N; first += SCANNED, turn ^= 1) {
        int64_t ids[EACH];
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int64_t n = first + i * EMBEDDING_THREADS + threadIdx.x;
            ids[i] = n < N ? tokens[n] - own : -1;
        }
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int index = i * EMBEDDING_THREADS + threadIdx.x;
            const uint64_t chosen = wave_ballot(ids[i] >= 0 && ids[i] < EMBEDDING_IDS);
            own_id[turn][index] = static_cast<unsigned char>(ids[i]);
            if (index % WAVE == 0) ballots[turn][index / WAVE] = chosen;
        }
        __syncthreads();
        const int lane = threadIdx.x % WAVE;
        // visit the set bits in order, skipping ballots without any
        for (uint64_t hits = wave_ballot(lane < BALLOTS && ballots[turn][lane]); hits; hits &= hits - 1) {
            const int ballot = lowest_bit(hits);
            for (uint64_t rest = ballots[turn][ballot]; rest;) {
                float values[IN_FLIGHT];
                int which[IN_FLIGHT];
#pragma unroll
                for (int i = 0; i < IN_FLIGHT; ++i, rest &= rest - 1) {
                    const int index = ballot * WAVE + (rest ? lowest_bit(rest) : 0);
                    which[i] = rest ? own_id[turn][index] : -1;
                    values[i] = rest && c < C ? widen(dx[(first + index) * C + c]) : 0.0f;
                }
#pragma unroll
                for (int i = 0; i < IN_FLIGHT; ++i)
                    if (which[i] >= 0) {
                        met |= 1u << which[i];
                        sums[which[i]][threadIdx.x] += values[i];
                    }
            }
        }
    }
    auto is_met = [&](int id) { return (met >> id & 1u) && c < C; };
    float* target = dtoken_table + own * C + c;
#pragma unroll
    for (int first = 0; first < EMBEDDING_IDS; first += EACH) {
        float before[EACH];
#pragma unroll
        for (int i = 0; i < EACH; ++i) before[i] = is_met(first + i) ? target[(first + i) * C] : 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; ++i)
            if (is_met(first + i)) target[(first + i) * C] = before[i] + sums[first + i][threadIdx.x];
    }
}

KERNEL(EMBEDDING_THREADS)
embedding_backward(float* dtoken_table, float* dposition_table, const act* dx, const int32_t* tokens, int64_t V,
                   int64_t C, int64_t T, int64_t B, int64_t S) {
    const int64_t groups = (V + EMBEDDING_IDS - 1) / EMBEDDING_IDS;
    const int64_t c = int64_t{blockIdx.y} * EMBEDDING_THREADS + threadIdx.x;
    if (blockIdx.x < groups)
        return add_token_gradients(dtoken_table, dx, tokens, int64_t{blockIdx.x} * EMBEDDING_IDS, c, B * S, C);
    const int64_t s = blockIdx.x - groups;
    float sum = 0.0f;
    if (c >= C) return;
    for (int64_t b = 0; b < B; ++b) sum += widen(dx[(b * S + s) * C + c]);
    dposition_table[s * C + c] += sum;
}

KERNEL(EMBEDDING_THREADS)
token_embedding_forward(act* x, const int32_t* tokens, const act* token_table, int64_t N, int64_t C, int64_t V) {
    const int64_t n = blockIdx.x;
    for (int64_t c = threadIdx.x; c < C; c += EMBEDDING_THREADS) x[n * C + c] = token_table[tokens[n] * C + c];
}

KERNEL(EMBEDDING_THREADS)
token_embedding_backward(float* dtoken_table, const act* dx, const int32_t* tokens, int64_t V, int64_t C, int64_t N) {
    const int64_t c = int64_t{blockIdx.y} * EMBEDDING_THREADS + threadIdx.x;
    add_token_gradients(dtoken_table, dx, tokens, int64_t{blockIdx.x} * EMBEDDING_IDS, c, N, C);
}

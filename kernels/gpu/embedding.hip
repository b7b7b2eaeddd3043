// embedding_forward: x[b,s] = token_table[tokens[b,s]] + position_table[starts[b] + s]. Grid B*S, a block a row.
//
// embedding_backward, without atomics. Grid (ceil(V / IDS) + S) x ceil(C / CHANNELS), a thread a channel: a block owns IDS
// tokens, looks through all of `tokens` for them, EACH to a thread at a time, and adds their rows, in order, to sums in shared
// memory, AT_ONCE of them on their way at a time; the last S blocks own a position each.
#include "platform.h"
#include "values.h"

constexpr int THREADS = 128, IDS = 32, CHANNELS = THREADS, EACH = 8, LOOKED_AT = EACH * THREADS, AT_ONCE = 4;
constexpr int WORDS = LOOKED_AT / WAVE;
static_assert(WORDS <= WAVE, "a lane for each word of `found`");

KERNEL(THREADS) embedding_forward(act* x, const int32_t* tokens, const int32_t* starts, const act* token_table,
                                  const act* position_table, int64_t B, int64_t S, int64_t C, int64_t V, int64_t T) {
    const int64_t n = blockIdx.x;
    const act* token = token_table + tokens[n] * C;
    const act* position = position_table + (starts[n / S] + n % S) * C;
    for (int64_t c = threadIdx.x; c < C; c += THREADS) narrow(x[n * C + c], widen(token[c]) + widen(position[c]));
}

KERNEL(THREADS) embedding_backward(float* dtoken_table, float* dposition_table, const act* dx, const int32_t* tokens,
                                   int64_t V, int64_t C, int64_t T, int64_t B, int64_t S) {
    const int64_t N = B * S, groups = (V + IDS - 1) / IDS, c = int64_t{blockIdx.y} * CHANNELS + threadIdx.x;
    if (blockIdx.x >= groups) {
        const int64_t s = blockIdx.x - groups;
        float sum = 0.0f;
        if (c < C) {
            for (int64_t b = 0; b < B; ++b) sum += widen(dx[(b * S + s) * C + c]);
            dposition_table[s * C + c] += sum;
        }
        return;
    }
    __shared__ float sums[IDS][CHANNELS];
    __shared__ unsigned char own[2][LOOKED_AT];  // of the tokens looked at: which of the block's ids they are
    __shared__ uint64_t found[2][WORDS];         // and whether they are one, a bit each
    uint32_t met = 0;
    for (int id = 0; id < IDS; ++id) sums[id][threadIdx.x] = 0.0f;
    for (int64_t first = 0, turn = 0; first < N; first += LOOKED_AT, turn ^= 1) {
        int64_t ids[EACH];
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int64_t n = first + i * THREADS + threadIdx.x;
            ids[i] = n < N ? tokens[n] - int64_t{blockIdx.x} * IDS : -1;
        }
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int place = i * THREADS + threadIdx.x;
            const uint64_t chosen = wave_ballot(ids[i] >= 0 && ids[i] < IDS);
            own[turn][place] = static_cast<unsigned char>(ids[i]);
            if (place % WAVE == 0) found[turn][place / WAVE] = chosen;
        }
        __syncthreads();
        const int lane = threadIdx.x % WAVE;
        for (uint64_t words = wave_ballot(lane < WORDS && found[turn][lane]); words; words &= words - 1) {
            const int word = lowest_bit(words);
            for (uint64_t rest = found[turn][word]; rest;) {
                float values[AT_ONCE];
                int which[AT_ONCE];
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i, rest &= rest - 1) {
                    const int place = word * WAVE + (rest ? lowest_bit(rest) : 0);
                    which[i] = rest ? own[turn][place] : -1;
                    values[i] = rest && c < C ? widen(dx[(first + place) * C + c]) : 0.0f;
                }
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i)
                    if (which[i] >= 0) {
                        met |= 1u << which[i];
                        sums[which[i]][threadIdx.x] += values[i];
                    }
            }
        }
    }
    auto is_met = [&](int id) { return (met >> id & 1u) && c < C; };
    float* target = dtoken_table + int64_t{blockIdx.x} * IDS * C + c;
#pragma unroll
    for (int first = 0; first < IDS; first += EACH) {
        float before[EACH];
#pragma unroll
        for (int i = 0; i < EACH; ++i) before[i] = is_met(first + i) ? target[(first + i) * C] : 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; ++i)
            if (is_met(first + i)) target[(first + i) * C] = before[i] + sums[first + i][threadIdx.x];
    }
}

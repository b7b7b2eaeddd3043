// embedding_forward: x[b,s] = token_table[tokens[b,s]] + position_table[starts[b] + s]. Grid B*S, a block a row.
//
// embedding_backward, without atomics. Grid (ceil(V / IDS) + S) x ceil(C / CHANNELS), a thread a channel: a block owns IDS
// tokens, looks through all of `tokens` for them and adds their rows, in order, to sums in shared memory; the last S blocks
// own a position each.
#include "platform.h"
#include "values.h"

constexpr int THREADS = 128, IDS = 32, CHANNELS = 128, LOOKED_AT = THREADS;
static_assert(CHANNELS == THREADS, "");

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
    __shared__ int32_t own[2][LOOKED_AT];                   // of the tokens looked at: which of the block's ids they are
    __shared__ uint64_t found[2][LOOKED_AT / WAVE];  // and whether they are one, a bit each
    uint32_t met = 0;
    for (int id = 0; id < IDS; ++id) sums[id][threadIdx.x] = 0.0f;
    for (int64_t first = 0, turn = 0; first < N; first += LOOKED_AT, turn ^= 1) {
#pragma unroll
        for (int place = threadIdx.x; place < LOOKED_AT; place += THREADS) {
            const int64_t id = first + place < N ? tokens[first + place] - int64_t{blockIdx.x} * IDS : -1;
            const uint64_t chosen = wave_ballot(id >= 0 && id < IDS);
            own[turn][place] = static_cast<int32_t>(id);
            if (place % WAVE == 0) found[turn][place / WAVE] = chosen;
        }
        __syncthreads();
        for (int wave = 0; wave < LOOKED_AT / WAVE; ++wave)
            for (uint64_t rest = found[turn][wave]; rest; rest &= rest - 1) {
                const int place = wave * WAVE + __ffsll(static_cast<long long>(rest)) - 1, which = own[turn][place];
                met |= 1u << which;
                if (c < C) sums[which][threadIdx.x] += widen(dx[(first + place) * C + c]);
            }
    }
    for (int id = 0; id < IDS; ++id)
        if ((met >> id & 1u) && c < C) dtoken_table[(int64_t{blockIdx.x} * IDS + id) * C + c] += sums[id][threadIdx.x];
}

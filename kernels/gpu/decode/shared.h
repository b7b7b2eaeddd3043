// The shared memory of a thread block of decode_blocks.hip: the inputs of the next layer, and sums.
#pragma once
#include "gpu/decode/exchange.h"
#include "gpu/decode/multiply_add.h"
#include "gpu/simt/cached_attention.h"
#include "gpu/simt/reduce.h"

// hipgpt/compute/backends/decode_blocks.py reads the first two.
constexpr int UNIT = 32;     // columns that a wave multiplies at once, by two mma
constexpr int PADDING = 32;  // of rows in shared memory, against bank conflicts
constexpr int BLOCKS = CHANNELS / OUTPUTS, WAVES = DECODE_BLOCKS_THREADS / WAVE;
constexpr int MOST_OUTPUTS =
    OUTPUTS * (HIDDEN > 3 * CHANNELS ? HIDDEN / CHANNELS : 3);  // of a thread block: qkv or mlp_in

struct Statistics {
    float mean, rstd;
};

struct Shared {
    // the stream at the beginning of a block of the model, and between its attention and its MLP
    act residual[2][SEQUENCES][CHANNELS + PADDING];
    act inputs[SEQUENCES][HIDDEN + PADDING];         // of projection and of mlp_out
    act parameters[2][9 * CHANNELS + HIDDEN];        // vectors of this block and of the next
    float partials[WAVES][SEQUENCES][MOST_OUTPUTS];  // sums over each wave's columns
    WaveSoftmaxes<DECODE_BLOCKS_THREADS, HEAD_CHANNELS> softmaxes;
    act qkv[3][HEAD_CHANNELS];  // of the head that is attended to
    Statistics statistics[SEQUENCES];
    int32_t positions[SEQUENCES];
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "");

// Fills rows from the slots of (N, COLUMNS), and waits for all threads.
template <int COLUMNS, int ROW>
DEVICE void receive_rows(act (&rows)[SEQUENCES][ROW], const Slot* slots, uint32_t tag) {
    constexpr int PAIRS = COLUMNS / 2;
    receive<DECODE_BLOCKS_THREADS, SEQUENCES * PAIRS>(
        slots, tag, [&](int i, uint32_t pair) { reinterpret_cast<uint32_t*>(rows[i / PAIRS])[i % PAIRS] = pair; });
    __syncthreads();
}

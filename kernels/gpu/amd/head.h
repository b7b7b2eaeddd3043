// The rows of one attention head as operands and sums of AMD's matrix unit, for attention_amd.hip and
// attention_backward_amd.hip.
//
// A block owns ATTENTION_ROWS rows of a head, ROW_TILES x 16 per wave, and visits tiles of the head's rows. Products are
// computed transposed: the visited rows are the unit's i, the owned ones its j. So lane l has products of one owned row,
// l % 16, with 8 neighbouring visited rows for each segment (amd/unit.h). These are the k of an operand of the next
// product, so values go from sums to operands inside a lane.
#pragma once
#include "gpu/amd/operand_loader.h"
#ifndef HEAD_CHANNELS
#define HEAD_CHANNELS 64  // D rounded up to 32, 64 or 128
#endif

constexpr float MASKED = -1e30f, LOG2_E = 1.44269504f;
constexpr int ATTENTION_THREADS = MMA_WAVES * WAVE;
constexpr int ROW_TILES = ATTENTION_ROWS / (16 * MMA_WAVES);
constexpr int CHANNEL_STEPS = HEAD_CHANNELS / Unit::STEP_K, CHANNEL_TILES = HEAD_CHANNELS / 16;

// The operand of 16 rows from `first` on and channels from first_channel on, from global memory; zero from S and D on.
DEVICE Unit::Operand row_operand(const act* rows, int64_t stride, int64_t first, int first_channel, int64_t S,
                                 int64_t D) {
    const int64_t row = first + lane_of_wave() % 16;
    const int channel = first_channel + Unit::first_k(lane_of_wave());
    Unit::Operand operand = {};
    if (row >= S) return operand;
    const act* source = rows + row * stride + channel;
    if (is_wide(D)) {
        union {
            Chunk chunk[Unit::HELD_K / WIDTH];
            Unit::Operand operand;
        } read = {};
        for (int c = 0; c < Unit::HELD_K / WIDTH; ++c)
            if (channel + c * WIDTH < D) read.chunk[c] = reinterpret_cast<const Chunk*>(source)[c];
        return read.operand;
    }
    for (int k = 0; k < Unit::HELD_K; ++k)
        if (channel + k < D) operand[k] = source[k].bits;
    return operand;
}

// Operands of the wave's own rows. They have arrived when this returns: otherwise clang lets the first product of every
// visit wait for all loads that are under way, those for the next visit too.
typedef Unit::Operand OwnRows[ROW_TILES][CHANNEL_STEPS];
DEVICE void load_own_rows(OwnRows& operands, const act* rows, int64_t stride, int64_t first, int64_t S, int64_t D) {
    for (int t = 0; t < ROW_TILES; ++t)
        for (int c = 0; c < CHANNEL_STEPS; ++c)
            operands[t][c] = row_operand(rows, stride, first + t * 16, c * Unit::STEP_K, S, D);
    for (int t = 0; t < ROW_TILES; ++t)
        for (int c = 0; c < CHANNEL_STEPS; ++c) operands[t][c] = opaque(operands[t][c]);
}

// products += the VISITED rows of a tile in shared memory times the wave's own rows.
template <int VISITED>
DEVICE void multiply_rows(Unit::Sum (&products)[ROW_TILES][VISITED], const bf16* tile, const OwnRows& own) {
#pragma unroll
    for (int j = 0; j < VISITED; ++j)
#pragma unroll
        for (int c = 0; c < CHANNEL_STEPS; ++c) {
            const Unit::Operand visited = OperandTile<HEAD_CHANNELS>::load(tile, j * 16, c * Unit::STEP_K);
#pragma unroll
            for (int t = 0; t < ROW_TILES; ++t) Unit::multiply(products[t][j], visited, own[t][c]);
        }
}

// The same where K has VISITED steps: sums += channels of a transposed tile times factors of the wave's own rows.
template <int STEPS>
DEVICE void accumulate(Unit::Sum (&sums)[ROW_TILES][CHANNEL_TILES], const bf16* tile,
                       const Unit::Operand (&factors)[ROW_TILES][STEPS]) {
#pragma unroll
    for (int j = 0; j < STEPS; ++j)
#pragma unroll
        for (int c = 0; c < CHANNEL_TILES; ++c) {
            const Unit::Operand channels = OperandTile<STEPS * Unit::STEP_K>::load(tile, c * 16, j * Unit::STEP_K);
#pragma unroll
            for (int t = 0; t < ROW_TILES; ++t) Unit::multiply(sums[t][c], channels, factors[t][j]);
        }
}

// The visited row that element e of tile j holds in this lane, counted from the lane's first one, lane / 16 * WIDTH.
DEVICE constexpr int visited_row(int j, int e) { return j / TILES * SEGMENT_ROWS + j % TILES * Unit::SIZE + e; }

// Leaves out scores of keys that come after their query. ahead: of the first visited row, compared with the wave's
// first own row. OWNS_KEYS: the wave's own rows are keys, otherwise queries.
template <bool OWNS_KEYS, int VISITED>
DEVICE void mask(Unit::Sum (&scores)[ROW_TILES][VISITED], int ahead) {
    const int lane = lane_of_wave(), first = ahead + lane / 16 * WIDTH - lane % 16;
#pragma unroll
    for (int t = 0; t < ROW_TILES; ++t)
#pragma unroll
        for (int j = 0; j < VISITED; ++j)
#pragma unroll
            for (int e = 0; e < Unit::SIZE; ++e) {
                const int distance = first + visited_row(j, e) - t * 16;
                if (OWNS_KEYS ? distance < 0 : distance > 0) scores[t][j][e] = MASKED;
            }
}

// Stores the lane's channels of a row times a factor.
DEVICE void store(act* target, const Unit::Sum (&sums)[CHANNEL_TILES], float factor, int64_t D) {
#pragma unroll
    for (int c = 0; c < CHANNEL_TILES; c += TILES) {
        const int64_t channel = c * 16 + lane_of_wave() / 16 * WIDTH;
        float values[WIDTH];
        for (int i = 0; i < WIDTH; ++i) values[i] = sums[c + i / Unit::SIZE][i % Unit::SIZE] * factor;
        if (channel < D) store_some(target + channel, values, D - channel, is_wide(D));
    }
}

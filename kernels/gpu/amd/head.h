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

constexpr float MASKED = -1e30f;
constexpr int ATTENTION_THREADS = MMA_WAVES * WAVE;
constexpr int ROW_TILES = ATTENTION_ROWS / (16 * MMA_WAVES);
// Operands that are loaded at once. On RDNA 3 they are so large that with the widest heads two would be spilled.
constexpr int LOADED_AT_ONCE = Unit::MANY_REGISTERS || (Unit::HELD_K == 16 && HEAD_CHANNELS == 128) ? 1 : 2;
constexpr int CHANNEL_STEPS = HEAD_CHANNELS / Unit::STEP_K, CHANNEL_TILES = HEAD_CHANNELS / 16;

// The operand of 16 rows from `first` on and channels from first_channel on, from global memory; zero from S and D on.
DEVICE Unit::Operand row_operand(Matrix rows, int64_t first, int first_channel, int64_t S, int64_t D) {
    const int64_t row = first + lane_of_wave() % 16;
    const int channel = first_channel + Unit::first_k(lane_of_wave());
    Unit::Operand operand = {};
    if (row >= S) return operand;
    const act* source = rows.data + row * rows.stride + channel;
    if (is_wide(D)) {
        OperandChunks read = {};
        for (int c = 0; c < Unit::HELD_K / WIDTH; ++c)
            if (channel + c * WIDTH < D) read.chunk[c] = reinterpret_cast<const Chunk*>(source)[c];
        return read.operand;
    }
    for (int k = 0; k < Unit::HELD_K; ++k)
        if (channel + k < D) operand[k] = source[k].bits;
    return operand;
}

// The wave's own rows: operands in registers, or where these are too few in a tile of the wave in shared memory.
template <bool IN_REGISTERS>
struct OwnRows {
    static constexpr int TILE = IN_REGISTERS ? 0 : ROW_TILES * 16 * HEAD_CHANNELS;  // elements
    using Layout = OperandTile<HEAD_CHANNELS>;
    Unit::Operand operands[IN_REGISTERS ? ROW_TILES : 1][IN_REGISTERS ? CHANNEL_STEPS : 1];
    bf16* tile;
    unsigned own;  // Layout::of_lane()

    // negative: change all signs. The loads have arrived when this returns: otherwise clang lets the first product of
    // every visit wait for all loads that are under way, those for the next visit too.
    DEVICE_MEMBER void load(Matrix rows, int64_t first, int64_t S, int64_t D, bool negative = false) {
        const short sign = negative ? static_cast<short>(0x8000) : 0;
        for (int t = 0; t < ROW_TILES; ++t)
            for (int c = 0; c < CHANNEL_STEPS; ++c) {
                const Unit::Operand row = row_operand(rows, first + t * 16, c * Unit::STEP_K, S, D) ^ sign;
                if constexpr (IN_REGISTERS)
                    operands[t][c] = row;
                else
                    Layout::store(tile, own, t * 16, c * Unit::STEP_K, row);
            }
        if constexpr (IN_REGISTERS)
            for (int t = 0; t < ROW_TILES; ++t)
                for (int c = 0; c < CHANNEL_STEPS; ++c) {
                    OperandChunks hidden;
                    hidden.operand = operands[t][c];
                    for (Chunk& chunk : hidden.chunk) chunk = opaque(chunk);
                    operands[t][c] = hidden.operand;
                }
    }
    DEVICE_MEMBER Unit::Operand operand(int t, int c) const {
        if constexpr (IN_REGISTERS)
            return operands[t][c];
        else
            return Layout::load(tile, own, t * 16, c * Unit::STEP_K);
    }
};

// Calls use(i, load(i)) for i from 0 to COUNT. LOADED_AT_ONCE operands are on their way together, so that the matrix
// unit works on the first ones while the others arrive; clang alone would wait for each one.
template <int COUNT, class Load, class Use>
DEVICE void for_operands(const Load& load, const Use& use) {
    constexpr int AT_ONCE = COUNT % LOADED_AT_ONCE ? 1 : LOADED_AT_ONCE;
#pragma unroll
    for (int first = 0; first < COUNT; first += AT_ONCE) {
        Unit::Operand loaded[AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) loaded[i] = load(first + i);
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) use(first + i, loaded[i]);
    }
}

// products += the VISITED * 16 rows of a tile in shared memory times the wave's own rows. lane: of_lane() of the tile.
template <int VISITED, class Own>
DEVICE void multiply_rows(Unit::Sum (&products)[ROW_TILES][VISITED], const bf16* tile, unsigned lane, const Own& own) {
    for_operands<CHANNEL_STEPS * VISITED>(
        [&](int i) {
            return OperandTile<HEAD_CHANNELS>::load(tile, lane, i % VISITED * 16, i / VISITED * Unit::STEP_K);
        },
        [&](int i, const Unit::Operand& visited) {
#pragma unroll
            for (int t = 0; t < ROW_TILES; ++t)
                Unit::multiply(products[t][i % VISITED], visited, own.operand(t, i / VISITED));
        });
}

// sums += channels of a transposed tile times factors of the wave's own rows. lane: of_lane() of the tile.
template <int STEPS>
DEVICE void accumulate(Unit::Sum (&sums)[ROW_TILES][CHANNEL_TILES], const bf16* tile, unsigned lane,
                       const Unit::Operand (&factors)[ROW_TILES][STEPS]) {
    for_operands<STEPS * CHANNEL_TILES>(
        [&](int i) {
            const int c = i % CHANNEL_TILES, j = i / CHANNEL_TILES;
            return OperandTile<STEPS * Unit::STEP_K>::load(tile, lane, c * 16, j * Unit::STEP_K);
        },
        [&](int i, const Unit::Operand& channels) {
#pragma unroll
            for (int t = 0; t < ROW_TILES; ++t)
                Unit::multiply(sums[t][i % CHANNEL_TILES], channels, factors[t][i / CHANNEL_TILES]);
        });
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

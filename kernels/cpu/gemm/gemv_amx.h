// The matrix-vector product of decoding, by AMX: 16 rows of the weight are A, x is B's only column, and both are read
// in place. VDPBF16PS, one in two cycles, would be slower than L2 delivers the weight.
#pragma once
#include "cpu/select/act.h"
#include "cpu/select/amx_instructions.h"

constexpr int64_t GEMV_ROWS = 32;  // 64, in four tiles of sums, come more slowly out of L2

const TileConfiguration ONE_COLUMN{4, 4, 4, 4, 64, 64, 4, 4};
inline void begin_gemv() { configure_tiles(ONE_COLUMN); }

// sums[r] = x . row r of weight (GEMV_ROWS, C).
inline void gemv(float* sums, const act* x, const act* weight, int64_t C) {
    const act* upper = weight;
    const act* lower = weight + 16 * C;
    int64_t c = 0;
    ZERO_TILE(0);
    ZERO_TILE(1);
    for (; c + 32 <= C; c += 32) {
        LOAD_TILE(6, x + c, 4);
        LOAD_TILE(4, upper + c, C * 2);
        LOAD_TILE(5, lower + c, C * 2);
        MULTIPLY_TILES(0, 4, 6);
        MULTIPLY_TILES(1, 5, 6);
    }
    STORE_TILE(0, sums, 4);
    STORE_TILE(1, sums + 16, 4);
    for (; c < C; ++c)
        for (int64_t r = 0; r < GEMV_ROWS; ++r) sums[r] += static_cast<float>(x[c]) * weight[r * C + c];
}

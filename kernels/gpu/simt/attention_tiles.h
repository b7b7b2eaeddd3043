// Tiles of one attention head in shared memory, and products of them by plain arithmetic, for attention.hip.
#pragma once
#include "gpu/simt/vector_io.h"

constexpr int SIDE = 16;  // a block's threads form a square of SIDE x SIDE
static_assert(SIDE * SIDE == THREADS, "");
// Tiles of TILE rows by D channels in shared memory, which the kernel hands in as one array of planes, a plane per
// tile. A thread at (x, y) computes every SIDE-th row from y on and every SIDE-th column from x on.
template <int TILE>
struct Tiles {
    static constexpr int EACH = TILE / SIDE, MOST = TILE == NARROW_TILE ? NARROW_CHANNELS : MOST_CHANNELS;
    static constexpr int CHANNELS = MOST / SIDE;                     // of a thread
    static constexpr int ROW = TILE + 1, PLANE = TILE * (MOST + 1);  // + 1: neighbouring rows start in different banks

    int D, x, y;

    // Loads TILE rows of a source from row `first` on, `row_stride` elements apart. Rows from `limit` on are zero.
    DEVICE_MEMBER void load_rows(float* plane, const act* source, int64_t first, int64_t limit,
                                 int64_t row_stride) const {
        for (int index = threadIdx.x; index < TILE * D; index += THREADS) {
            const int row = index / D, d = index % D;
            plane[row * (D + 1) + d] = first + row < limit ? widen(source[(first + row) * row_stride + d]) : 0.0f;
        }
    }

    // products = A B^T: products[r][c] = row (y + r * SIDE) of a . row (x + c * SIDE) of b
    DEVICE_MEMBER void multiply_ABt(float (&products)[EACH][EACH], const float* a, const float* b) const {
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < EACH; ++c) products[r][c] = 0.0f;
#pragma unroll 8
        for (int d = 0; d < D; ++d)
            for (int r = 0; r < EACH; ++r)
                for (int c = 0; c < EACH; ++c)
                    products[r][c] += a[(y + r * SIDE) * (D + 1) + d] * b[(x + c * SIDE) * (D + 1) + d];
    }

    // sums += A B, which is P V in forward: sums[r][c] += sum over j of a[y + r * SIDE][j] * b[j][x + c * SIDE]
    DEVICE_MEMBER void accumulate_AB(float (&sums)[EACH][CHANNELS], const float* a, const float* b) const {
#pragma unroll 4
        for (int j = 0; j < TILE; ++j)
            for (int r = 0; r < EACH; ++r)
                for (int c = 0; c < CHANNELS; ++c)
                    if (x + c * SIDE < D) sums[r][c] += a[(y + r * SIDE) * ROW + j] * b[j * (D + 1) + x + c * SIDE];
    }

    // Stores sums[r] * factor[r] as row first + y + r * SIDE of a target, if that is below `limit`.
    DEVICE_MEMBER void store_rows(act* target, const float (&sums)[EACH][CHANNELS], const float (&factor)[EACH],
                                  int64_t first, int64_t limit, int64_t row_stride) const {
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < CHANNELS; ++c) {
                const int64_t row = first + y + r * SIDE, d = x + c * SIDE;
                if (row < limit && d < D) narrow(target[row * row_stride + d], sums[r][c] * factor[r]);
            }
    }
};

// Reductions over the SIDE threads that share y, which are neighbours in a wave.
DEVICE float row_sum(float value) { return sum_of_lanes<SIDE>(value); }
DEVICE float row_maximum(float value) { return maximum_of_lanes<SIDE>(value); }

// Tiles of one attention head in shared memory, and products of them by plain arithmetic, for attention.hip.
#pragma once
#include "gpu/simt/vector_io.h"

// Tiles of TILE rows by D channels in shared memory, which the kernel hands in as one array of planes, a plane per
// tile. A block's threads form SIDE rows of LANES lanes. A thread computes every SIDE-th row from y on. Of A B^T it
// computes every SIDE-th column from `column` on, of A B every LANES-th channel from `lane` on. A tile of fewer than 16
// rows has more lanes than columns: SLICES lanes share a column of A B^T, and each adds up a slice of the channels.
template <int TILE>
struct Tiles {
    static constexpr int SIDE = TILE < 16 ? TILE : 16, LANES = THREADS / SIDE, SLICES = LANES / SIDE;
    static constexpr int EACH = TILE / SIDE;
    static constexpr int MOST = TILE == NARROW_TILE ? NARROW_CHANNELS
                                : TILE == WIDE_TILE ? WIDE_CHANNELS
                                                    : WIDEST_CHANNELS;
    static constexpr int CHANNELS = MOST / LANES;  // of a thread
    // + SLICES: what lanes read at once, as many neighbours of each row, is in different banks
    static constexpr int ROW = TILE + 1, PLANE = TILE * (MOST + SLICES);

    int D, lane, column, y;

    DEVICE_MEMBER explicit Tiles(int64_t channels)
        : D(static_cast<int>(channels)),
          lane(threadIdx.x % LANES),
          column(threadIdx.x % SIDE),
          y(threadIdx.x / LANES) {}

    // Loads TILE rows of a source from row `first` on, `row_stride` elements apart. Rows from `limit` on are zero.
    DEVICE_MEMBER void load_rows(float* plane, const act* source, int64_t first, int64_t limit,
                                 int64_t row_stride) const {
        for (int index = threadIdx.x; index < TILE * D; index += THREADS) {
            const int row = index / D, d = index % D;
            plane[row * (D + SLICES) + d] = first + row < limit ? widen(source[(first + row) * row_stride + d]) : 0.0f;
        }
    }

    // products = A B^T: products[r][c] = row (y + r * SIDE) of a . row (column + c * SIDE) of b
    DEVICE_MEMBER void multiply_ABt(float (&products)[EACH][EACH], const float* a, const float* b) const {
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < EACH; ++c) products[r][c] = 0.0f;
#pragma unroll 8
        for (int d = lane / SIDE; d < D; d += SLICES)
            for (int r = 0; r < EACH; ++r)
                for (int c = 0; c < EACH; ++c)
                    products[r][c] += a[(y + r * SIDE) * (D + SLICES) + d] * b[(column + c * SIDE) * (D + SLICES) + d];
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < EACH; ++c) products[r][c] = sum_of_slices(products[r][c]);
    }

    // sums += A B, which is P V in forward: sums[r][c] += sum over j of a[y + r * SIDE][j] * b[j][lane + c * LANES]
    DEVICE_MEMBER void accumulate_AB(float (&sums)[EACH][CHANNELS], const float* a, const float* b) const {
#pragma unroll 4
        for (int j = 0; j < TILE; ++j)
            for (int r = 0; r < EACH; ++r)
                for (int c = 0; c < CHANNELS; ++c)
                    if (lane + c * LANES < D)
                        sums[r][c] += a[(y + r * SIDE) * ROW + j] * b[j * (D + SLICES) + lane + c * LANES];
    }

    // Stores sums[r] * factor[r] as row first + y + r * SIDE of a target, if that is below `limit`.
    DEVICE_MEMBER void store_rows(act* target, const float (&sums)[EACH][CHANNELS], const float (&factor)[EACH],
                                  int64_t first, int64_t limit, int64_t row_stride) const {
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < CHANNELS; ++c) {
                const int64_t row = first + y + r * SIDE, d = lane + c * LANES;
                if (row < limit && d < D) narrow(target[row * row_stride + d], sums[r][c] * factor[r]);
            }
    }

    // Reductions over the columns of a row, which are neighbours in a wave.
    static DEVICE_MEMBER float row_sum(float value) { return sum_of_lanes<SIDE>(value); }
    static DEVICE_MEMBER float row_maximum(float value) { return maximum_of_lanes<SIDE>(value); }

   private:
    // The sum over the lanes that share a column. Each of them gets the same.
    template <int DISTANCE = SIDE>
    static DEVICE_MEMBER float sum_of_slices(float value) {
        if constexpr (DISTANCE < LANES)
            return sum_of_slices<2 * DISTANCE>(value + wave_exchange<DISTANCE>(value));
        else
            return value;
    }
};

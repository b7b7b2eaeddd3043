// A product's register tile in f32, by the compiler's vectors: ROWS x PANEL sums.
#pragma once
#include "../matrix.h"
#include "../vector.h"
#include <type_traits>

// ROWS * 2 sums, 2 vectors of B and one of A fill the registers: 32 with AVX-512 and on aarch64, else 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 12;
#else
constexpr int ROWS = 6;
#endif
constexpr int PANEL = 2 * LANES;
typedef float Element;  // of B's panels

struct Left {
    const float* data;
    int64_t row_stride, step_stride;
};

// How many elements a panel has of K terms.
inline int64_t panel_size(int64_t K) { return K * PANEL; }

// To be called by a thread before its tiles.
inline void begin_tiles() {}

// A[0:rows, 0:K] as a tile reads it: in place if it is f32, else as a copy of rows side by side.
template <class M = Matrix>  // a template, so that only one of both is compiled
Left pack_left(float* copy, M a, int64_t rows, int64_t K) {
    if constexpr (std::is_same_v<decltype(a.data), const float*>) return {a.data, a.row_stride, a.column_stride};
    for (int64_t k = 0; k < K; ++k)
        for (int64_t row = 0; row < rows; ++row) copy[k * ROWS + row] = *a.at(row, k);
    return {copy, 1, ROWS};
}

// Copies B[0:K, 0:columns] into panels of PANEL columns, k by k, the last one filled with zeros.
inline void pack_right(float* panels, Matrix b, int64_t K, int64_t columns) {
    for (int64_t first = 0; first < columns; first += PANEL, panels += K * PANEL) {
        const int64_t width = std::min<int64_t>(PANEL, columns - first);
        if (width < PANEL) std::fill(panels, panels + K * PANEL, 0.0f);
        if (b.column_stride == 1) {
            for (int64_t k = 0; k < K; ++k) std::copy_n(b.at(k, first), width, panels + k * PANEL);
        } else {
            for (int64_t column = 0; column < width; ++column)
                for (int64_t k = 0; k < K; ++k) panels[k * PANEL + column] = *b.at(k, first + column);
        }
    }
}

// sums (R, PANEL) = A panel, or += where they go on.
template <int R>
void tile(int64_t K, Left a, const float* panel, float* sums, int64_t stride, bool goes_on) {
    Vector values[R][2] = {};
    for (int64_t k = 0; k < K; ++k) {
        const Vector left = vector_at(panel + k * PANEL), right = vector_at(panel + k * PANEL + LANES);
        const float* column = a.data + k * a.step_stride;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const float factor = column[r * a.row_stride];
            values[r][0] += factor * left;
            values[r][1] += factor * right;
        }
    }
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half) {
            Vector& sum = vector_at(sums + r * stride + half * LANES);
            sum = goes_on ? sum + values[r][half] : values[r][half];
        }
}
#include "tile_of.h"

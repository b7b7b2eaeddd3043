// A product's register tile in bf16, by AVX512-BF16: one instruction adds, in each of 16 lanes, the products of two
// neighbours in k to an f32 sum. So a step over k is a pair.
// Intel, "Instruction Set Extensions Programming Reference", VDPBF16PS.
#pragma once
#include "interleave.h"

constexpr int ROWS = 12;

struct Left {
    const char* data;
    int64_t row_stride, step_stride;  // bytes
};

inline int64_t panel_size(int64_t K) { return (K + 1) / 2 * PANEL; }
inline void begin_tiles() {}

// A[0:rows, 0:K] as a tile reads it: in place, or as a copy of rows side by side, 16 words a step.
inline Left pack_left(Element* copy, Matrix a, int64_t rows, int64_t K) {
    if (a.column_stride == 1 && K % 2 == 0) return {reinterpret_cast<const char*>(a.data), a.row_stride * 2, 4};
    for (int64_t k = 0; k < K; k += 2, copy += 16)
        if (a.row_stride == 1)
            _mm512_storeu_si512(copy, interleaved(a.at(0, k), a.at(0, k + 1), (1 << rows) - 1, k + 1 < K));
        else
            for (int64_t row = 0; row < rows; ++row) copy[row] = pair_at(a, row, k, K);
    return {reinterpret_cast<const char*>(copy - (K + 1) / 2 * 16), 4, 64};
}

inline void pack_right(Element* panels, Matrix b, int64_t K, int64_t columns) {
    pack_pairs(panels, b, K, columns, (K + 1) / 2);
}

// sums (R, PANEL) = A panel, or += where they go on.
template <int R>
void tile(int64_t K, Left a, const Element* panel, float* sums, int64_t stride, bool goes_on) {
    __m512 values[R][2] = {};
    const int64_t pairs = (K + 1) / 2;
    for (int64_t pair = 0; pair < pairs; ++pair) {
        const __m512bh left = (__m512bh)_mm512_loadu_si512(panel + pair * PANEL);
        const __m512bh right = (__m512bh)_mm512_loadu_si512(panel + pair * PANEL + 16);
        const char* column = a.data + pair * a.step_stride;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            int32_t word;
            memcpy(&word, column + r * a.row_stride, 4);
            const __m512bh factor = (__m512bh)_mm512_set1_epi32(word);
            values[r][0] = _mm512_dpbf16_ps(values[r][0], factor, left);
            values[r][1] = _mm512_dpbf16_ps(values[r][1], factor, right);
        }
    }
    for (int r = 0; r < R; ++r)
        for (int half = 0; half < 2; ++half) {
            float* sum = sums + r * stride + half * 16;
            _mm512_storeu_ps(sum, goes_on ? _mm512_add_ps(_mm512_loadu_ps(sum), values[r][half]) : values[r][half]);
        }
}
#include "tile_of.h"

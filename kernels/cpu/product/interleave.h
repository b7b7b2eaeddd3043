// Pairs of neighbours in k, as bf16 units want them: B's panels hold a word of 32 bits for each pair.
#pragma once
#include "../matrix.h"
#include <immintrin.h>

constexpr int PANEL = 32;
typedef uint32_t Element;

// Neighbours k and k + 1 of up to 16 rows that lie side by side, zero beyond `rows` and at k = K.
inline __m512i interleaved(const act* first, const act* second, __mmask16 rows, bool has_second) {
    const __m512i low = _mm512_maskz_cvtepu16_epi32(rows, _mm256_maskz_loadu_epi16(rows, first));
    const __m512i high = _mm512_maskz_cvtepu16_epi32(rows, _mm256_maskz_loadu_epi16(has_second ? rows : 0, second));
    return _mm512_or_si512(low, _mm512_maskz_slli_epi32(rows, high, 16));
}

inline Element pair_at(Matrix a, int64_t row, int64_t k, int64_t K) {
    return a.at(row, k)->bits | (k + 1 < K ? static_cast<Element>(a.at(row, k + 1)->bits) << 16 : 0);
}

// Copies B[0:K, 0:columns] into panels of PANEL columns and `pairs` pairs, zeros where there is nothing.
inline void pack_pairs(Element* panels, Matrix b, int64_t K, int64_t columns, int64_t pairs) {
    for (int64_t first = 0; first < columns; first += PANEL, panels += pairs * PANEL) {
        const int64_t width = std::min<int64_t>(PANEL, columns - first);
        std::fill(panels + (K + 1) / 2 * PANEL, panels + pairs * PANEL, 0);
        if (b.column_stride == 1) {
            for (int64_t k = 0; k < K; k += 2)
                for (int64_t column = 0; column < PANEL; column += 16) {
                    const int64_t inside = std::clamp<int64_t>(width - column, 0, 16);
                    _mm512_storeu_si512(panels + k / 2 * PANEL + column,
                                        interleaved(b.at(k, first + column), b.at(k + 1, first + column),
                                                    (1 << inside) - 1, k + 1 < K));
                }
        } else {
            if (width < PANEL) std::fill(panels, panels + pairs * PANEL, 0);
            const Matrix columns_as_rows = {b.data, b.column_stride, b.row_stride};
            for (int64_t k = 0; k < K; k += 2)
                for (int64_t column = 0; column < width; ++column)
                    panels[k / 2 * PANEL + column] = pair_at(columns_as_rows, first + column, k, K);
        }
    }
}

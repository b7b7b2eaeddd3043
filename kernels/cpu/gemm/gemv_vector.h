// Dot products of one row with rows that lie in memory, by vectors: DOT_TERMS and add_products are product.h's.
#pragma once
#include "cpu/select/gemm_tile.h"

constexpr int64_t DOT_ROWS = 64;

// To be called by a thread before its dot products.
inline void begin_dots() {}

// sums[r] = x . row r of weight (DOT_ROWS, C): a vector for each row, one alone would wait for each of its additions.
inline void dot_rows(float* sums, const act* x, const act* weight, int64_t C) {
    for (int64_t row = 0; row < DOT_ROWS; row += LANES, sums += LANES, weight += LANES * C) {
        Vector partial[LANES] = {};
        int64_t c = 0;
        for (; c + DOT_TERMS <= C; c += DOT_TERMS)
#pragma GCC unroll 16
            for (int r = 0; r < LANES; ++r) partial[r] = add_products(partial[r], x + c, weight + r * C + c);
        vector_at(sums) = sums_of_rows(partial);
        for (; c < C; ++c)
            for (int r = 0; r < LANES; ++r) sums[r] += static_cast<float>(x[c]) * weight[r * C + c];
    }
}

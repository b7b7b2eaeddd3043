// The matrix-vector product of decoding, by vectors. select/gemm_tile.h brings multiply_add and GEMV_TERMS.
#pragma once
#include "cpu/select/gemm_tile.h"

constexpr int64_t GEMV_ROWS = 64;

// A thread calls this before its first gemv.
inline void begin_gemv() {}

// sums[r] = x . row r of weight (GEMV_ROWS, C), a vector of sums for each of LANES rows: with a single one, each
// addition would wait for the one before. Two pointers reach the rows by multiples of C: with one for each row, GCC would
// keep some of them in memory.
inline void gemv(float* sums, const act* x, const act* weight, int64_t C) {
    for (int64_t row = 0; row < GEMV_ROWS; row += LANES, sums += LANES, weight += LANES * C) {
        Vector partial[LANES] = {};
        const act *upper = weight, *lower = weight + LANES / 2 * C;
        int64_t c = 0;
        for (; c + GEMV_TERMS <= C; c += GEMV_TERMS, upper += GEMV_TERMS, lower += GEMV_TERMS)
#pragma GCC unroll 16
            for (int r = 0; r < LANES; ++r)
                partial[r] = multiply_add(partial[r], x + c, (r < LANES / 2 ? upper : lower) + r % (LANES / 2) * C);
        vector_at(sums) = sums_of_rows(partial);
        for (; c < C; ++c)
            for (int r = 0; r < LANES; ++r) sums[r] += static_cast<float>(x[c]) * weight[r * C + c];
    }
}

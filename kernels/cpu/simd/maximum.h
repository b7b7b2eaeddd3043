// The greatest of many values.
#pragma once
#include "cpu/simd/vector.h"
#include <algorithm>

// Four vectors side by side: one alone would wait for each of its comparisons.
inline float maximum_of(const float* values, int64_t count) {
    constexpr int64_t TOGETHER = 4 * LANES;
    float greatest[TOGETHER];
    std::fill_n(greatest, TOGETHER, values[0]);
    int64_t i = 0;
    for (; i + TOGETHER <= count; i += TOGETHER)
#pragma omp simd
        for (int64_t lane = 0; lane < TOGETHER; ++lane)
            greatest[lane] = values[i + lane] > greatest[lane] ? values[i + lane] : greatest[lane];
    return std::max(*std::max_element(greatest, greatest + TOGETHER),
                    *std::max_element(values + std::min(i, count - 1), values + count));
}

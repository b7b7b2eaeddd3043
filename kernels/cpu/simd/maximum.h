// The maximum of many values, and where a value is.
#pragma once
#include "cpu/simd/vector.h"
#include <algorithm>

// Four vectors of maxima, because with a single one each comparison would wait for the one before.
inline float maximum_of(const float* values, int64_t count) {
    constexpr int64_t WIDTH = 4 * LANES;
    float maxima[WIDTH];
    std::fill_n(maxima, WIDTH, values[0]);
    int64_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH)
#pragma omp simd
        for (int64_t lane = 0; lane < WIDTH; ++lane)
            maxima[lane] = values[i + lane] > maxima[lane] ? values[i + lane] : maxima[lane];
    return std::max(*std::max_element(maxima, maxima + WIDTH),
                    *std::max_element(values + std::min(i, count - 1), values + count));
}

// The index of the first value that equals `wanted`, `count` if there is none.
inline int64_t first_index_of(float wanted, const float* values, int64_t count) {
    constexpr int64_t WIDTH = 4 * LANES;
    int64_t begin = 0;
    for (int32_t found = 0; begin + WIDTH <= count; begin += WIDTH) {
#pragma omp simd reduction(| : found)
        for (int64_t lane = 0; lane < WIDTH; ++lane) found |= values[begin + lane] == wanted ? 1 : 0;
        if (found) break;
    }
    return std::find(values + begin, values + count, wanted) - values;
}

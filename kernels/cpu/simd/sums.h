// Sums of many values in one order, the same for every row.
#pragma once
#include "cpu/simd/vector.h"

// x plus its lanes DISTANCE further on, which change places with those before them.
template <int DISTANCE, int... LANE>
inline Vector add_distant(Vector x, std::integer_sequence<int, LANE...>) {
    return x + shuffle<(LANE ^ DISTANCE)...>(x, x);
}

// The sum of all lanes, by halves: GCC would add one lane after another.
template <int DISTANCE = LANES / 2>
inline float sum_of_lanes(Vector x) {
    if constexpr (DISTANCE > 0)
        return sum_of_lanes<DISTANCE / 2>(add_distant<DISTANCE>(x, std::make_integer_sequence<int, LANES>()));
    return x[0];
}

// The sum over 0 <= i < count, where term(i) gives the values i to i + LANES - 1; those from `count` on are left out. Four
// vectors of sums, because with a single one each addition would wait for the one before.
template <class Term>
inline float sum_of(int64_t count, const Term& term) {
    constexpr int64_t WIDTH = 4 * LANES;
    Vector sums[4] = {};
    int64_t i = 0;
    for (; i + WIDTH <= count; i += WIDTH)
        for (int part = 0; part < 4; ++part) sums[part] += term(i + part * LANES);
    for (; i < count; i += LANES) sums[0] += first_lanes(count - i, term(i), Vector{});
    return sum_of_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// The sum of x * y over `count` values, with room for whole vectors.
inline float dot(const float* x, const float* y, int64_t count) {
    return sum_of(count, [=](int64_t i) { return vector_at(x + i) * vector_at(y + i); });
}

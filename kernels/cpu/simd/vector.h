// The widest vectors of the target processor: LANES floats, of any alignment.
#pragma once
#include "cpu/runtime/integers.h"
#include <cstdint>
#include <utility>

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

constexpr int64_t LINE = 16;  // floats of a cache line

constexpr int64_t padded(int64_t size, int64_t step = LANES) { return quotient_up(size, step) * step; }

// LANES neighbouring values of any type that converts to float.
template <class T>
inline Vector load_vector(const T* values) {
    Vector result = {};
    for (int lane = 0; lane < LANES; ++lane) result[lane] = values[lane];
    return result;
}

// The first `count` lanes of x, the other lanes of y.
inline Vector first_lanes(int64_t count, Vector x, Vector y) {
    if (count >= LANES) return x;
    typedef int32_t Numbers __attribute__((vector_size(sizeof(Vector))));
    Numbers lanes = {};
    for (int lane = 0; lane < LANES; ++lane) lanes[lane] = lane;
    return lanes < static_cast<int32_t>(count) ? x : y;
}

inline Vector greater(Vector x, Vector y) { return x > y ? x : y; }

inline Vector& vector_at(float* values) { return *reinterpret_cast<Vector*>(values); }
inline const Vector& vector_at(const float* values) { return *reinterpret_cast<const Vector*>(values); }

// The lanes INDEX of a and b; the lanes of b count from LANES on.
template <int... INDEX>
inline Vector shuffle(Vector a, Vector b) {
#ifdef __clang__
    return __builtin_shufflevector(a, b, INDEX...);
#else
    typedef int Indices __attribute__((vector_size(sizeof(Vector))));
    return __builtin_shuffle(a, b, Indices{INDEX...});
#endif
}

// Exchanges the off-diagonal blocks of DISTANCE lanes between two rows.
template <int DISTANCE, int... LANE>
inline void exchange(Vector& upper, Vector& lower, std::integer_sequence<int, LANE...>) {
    const Vector a = upper, b = lower;
    upper = shuffle<(LANE & DISTANCE ? LANES + LANE - DISTANCE : LANE)...>(a, b);
    lower = shuffle<(LANE & DISTANCE ? LANES + LANE : LANE + DISTANCE)...>(a, b);
}

// Transposes LANES rows of LANES, exchanging blocks of 1, then 2, 4, ... lanes.
template <int DISTANCE = 1>
inline void transpose(Vector* rows) {
    if constexpr (DISTANCE < LANES) {
#pragma GCC unroll 16
        for (int row = 0; row < LANES; ++row)
            if (!(row & DISTANCE))
                exchange<DISTANCE>(rows[row], rows[row + DISTANCE], std::make_integer_sequence<int, LANES>());
        transpose<2 * DISTANCE>(rows);
    }
}

// Reduces LANES rows at once: lane i of the result joins all lanes of row i by `join`. The rows are overwritten. Each
// round transposes neighbouring rows one step further and joins them.
template <int DISTANCE = 1, class Join>
inline Vector join_rows(Vector* rows, const Join& join) {
    if constexpr (DISTANCE < LANES) {
#pragma GCC unroll 16
        for (int pair = 0; pair < LANES / DISTANCE / 2; ++pair) {
            exchange<DISTANCE>(rows[2 * pair], rows[2 * pair + 1], std::make_integer_sequence<int, LANES>());
            rows[pair] = join(rows[2 * pair], rows[2 * pair + 1]);
        }
        return join_rows<2 * DISTANCE>(rows, join);
    }
    return rows[0];
}

inline Vector sums_of_rows(Vector* rows) {
    return join_rows(rows, [](Vector x, Vector y) { return x + y; });
}
inline Vector maxima_of_rows(Vector* rows) { return join_rows(rows, greater); }

// load_some, left to the compiler.
#pragma once
#include "cpu/simd/vector.h"

// The first `count` of LANES values, then zeros.
template <class T>
inline Vector load_some(const T* values, int64_t count) {
    if (count >= LANES) return load_vector(values);
    Vector result = {};
    for (int64_t lane = 0; lane < count; ++lane) result[lane] = values[lane];
    return result;
}

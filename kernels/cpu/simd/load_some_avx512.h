// load_some: f32 by a mask.
#pragma once
#include "cpu/simd/vector.h"
#include <immintrin.h>

inline Vector load_some(const float* values, int64_t count) {
    const __mmask16 inside = count >= LANES ? 0xFFFF : count > 0 ? (1 << count) - 1 : 0;
    return (Vector)_mm512_maskz_loadu_ps(inside, values);
}

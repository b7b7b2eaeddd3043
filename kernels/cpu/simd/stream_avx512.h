// Stores past the caches: see stream_avx2.h.
#pragma once
#include "cpu/simd/vector.h"
#include <immintrin.h>

constexpr bool CAN_STREAM = true;
inline void stream_row(float* target, Vector left, Vector right) {
    _mm512_stream_ps(target, (__m512)left);
    _mm512_stream_ps(target + LANES, (__m512)right);
}
inline void finish_streams() { _mm_sfence(); }

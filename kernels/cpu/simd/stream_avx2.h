// Rows of 2 LANES activations that are stored past the caches, each to whole lines of them. Other threads may read the
// values after finish_streams and a barrier.
#pragma once
#include "cpu/simd/vector.h"
#include <immintrin.h>

constexpr bool CAN_STREAM = true;
inline void stream_row(float* target, Vector left, Vector right) {
    _mm256_stream_ps(target, (__m256)left);
    _mm256_stream_ps(target + LANES, (__m256)right);
}
inline void finish_streams() { _mm_sfence(); }

// Rows of 2 LANES activations in f32 that are stored past the caches, each to whole lines of them. Other threads may read
// the values after finish_streams and a release that they acquire, such as a barrier.
#pragma once
#include "cpu/simd/vector.h"
#include <immintrin.h>

constexpr bool CAN_STREAM = true;
inline void stream_vector(float* target, Vector values) {
#ifdef __AVX512F__
    _mm512_stream_ps(target, (__m512)values);
#else
    _mm256_stream_ps(target, (__m256)values);
#endif
}
inline void stream_row(float* target, Vector left, Vector right) {
    stream_vector(target, left);
    stream_vector(target + LANES, right);
}
inline void finish_streams() { _mm_sfence(); }

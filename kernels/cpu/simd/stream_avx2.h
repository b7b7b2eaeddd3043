// Stores past the caches, to addresses that are multiples of a vector. They pay where whole lines are written. Other threads
// may read the values after finish_streams and a barrier.
#pragma once
#include "cpu/simd/vector.h"
#include <immintrin.h>

constexpr bool CAN_STREAM = true;
inline void stream(float* target, Vector value) { _mm256_stream_ps(target, (__m256)value); }
inline void finish_streams() { _mm_sfence(); }

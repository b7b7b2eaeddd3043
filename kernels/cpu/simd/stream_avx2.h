// Stores past the caches. A cache line must be written whole and in order. finish_streams comes before other threads
// read it.
#pragma once
#include "cpu/simd/vector.h"
#include <immintrin.h>

constexpr bool CAN_STREAM = true;
inline void stream(float* target, Vector value) { _mm256_stream_ps(target, (__m256)value); }
inline void finish_streams() { _mm_sfence(); }

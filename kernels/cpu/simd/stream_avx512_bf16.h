// Stores past the caches: see stream_f32.h.
#pragma once
#include "cpu/select/act.h"
#include "cpu/simd/vector.h"
#include <immintrin.h>

constexpr bool CAN_STREAM = true;
inline void stream_row(act* target, Vector left, Vector right) {
    const __m512bh row = _mm512_cvtne2ps_pbh((__m512)right, (__m512)left);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(target), (__m512i)row);
}
inline void finish_streams() { _mm_sfence(); }

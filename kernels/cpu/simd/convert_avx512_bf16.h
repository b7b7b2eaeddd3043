// load and store: activations in bf16 to f32 and back. One instruction rounds as act_bf16.h does in eight.
#pragma once
#include "cpu/select/act.h"
#include <cstdint>
#include <immintrin.h>

inline void load(float* target, const act* values, int64_t count) {
    // masks of ones, because compilers warn that the unmasked forms use an uninitialised register
    const auto widened = [](__m256i bits) {
        return (__m512)_mm512_maskz_slli_epi32(0xFFFF, _mm512_maskz_cvtepu16_epi32(0xFFFF, bits), 16);
    };
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(target + i, widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values + i))));
    const __mmask16 rest = (1 << (count - i)) - 1;
    _mm512_mask_storeu_ps(target + i, rest, widened(_mm256_maskz_loadu_epi16(rest, values + i)));
}

inline void store(act* target, const float* values, int64_t count) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + i),
                            (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(values + i)));
    const __mmask16 rest = (1 << (count - i)) - 1;
    const __m512 last = _mm512_maskz_loadu_ps(rest, values + i);
    _mm256_mask_storeu_epi16(target + i, rest, (__m256i)_mm512_cvtneps_pbh(last));
}

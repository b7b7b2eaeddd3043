// Activations in bf16 to f32 and back, by the processor's own rounding, as act/bf16.h does it in eight instructions.
#pragma once
#include "act.h"
#include <cstdint>
#include <immintrin.h>

inline __mmask16 lanes_of(int64_t count) { return count < 16 ? (1 << count) - 1 : 0xFFFF; }

inline void load(float* target, const act* values, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 inside = lanes_of(count - i);
        const __m512i words = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(inside, values + i));
        _mm512_mask_storeu_ps(target + i, inside, (__m512)_mm512_slli_epi32(words, 16));
    }
}

inline void store(act* target, const float* values, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 inside = lanes_of(count - i);
        const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(inside, values + i));
        _mm256_mask_storeu_epi16(target + i, inside, (__m256i)rounded);
    }
}

// Sums to activations in bf16 by the processor's own rounding, as act/bf16.h does it in eight instructions.
#pragma once
#include "act.h"
#include <cstdint>
#include <immintrin.h>

inline void store(act* target, const float* values, int64_t count) {
    for (int64_t i = 0; i < count; i += 16) {
        const __mmask16 inside = count - i < 16 ? (1 << (count - i)) - 1 : 0xFFFF;
        const __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(inside, values + i));
        _mm256_mask_storeu_epi16(target + i, inside, (__m256i)rounded);
    }
}

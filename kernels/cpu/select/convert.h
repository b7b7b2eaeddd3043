// load and store: activations to f32 and back.
#pragma once
#if ACT_BF16 && (CPU_AVX512_BF16 || CPU_AMX)
#include "cpu/simd/convert_avx512_bf16.h"
#else
#include "cpu/simd/convert_plain.h"
#endif

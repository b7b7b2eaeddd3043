// stream_row: stores past the caches.
#pragma once
#if CPU_AMX || (ACT_BF16 && !CPU_AVX512_BF16)
#include "cpu/simd/stream_none.h"
#elif ACT_BF16
#include "cpu/simd/stream_avx512_bf16.h"
#elif defined(__AVX2__)
#include "cpu/simd/stream_f32.h"
#else
#include "cpu/simd/stream_none.h"
#endif

// load_some: the first `count` of LANES activations as f32, then zeros.
#pragma once
#if defined(__AVX512F__) && !ACT_BF16
#include "cpu/simd/load_some_avx512.h"
#else
#include "cpu/simd/load_some_plain.h"
#endif

// stream: stores past the caches.
#pragma once
#if defined(__AVX2__) && !defined(__AVX512F__)
#include "cpu/simd/stream_avx2.h"
#else
#include "cpu/simd/stream_none.h"
#endif

// The GEMM's micro-kernel: the register tile, and how A and B are packed for it.
#pragma once
#if CPU_AMX
#include "cpu/gemm/tile_amx.h"
#elif ACT_BF16 && CPU_AVX512_BF16
#include "cpu/gemm/tile_avx512_bf16.h"
#else
#include "cpu/gemm/tile_vector.h"
#endif

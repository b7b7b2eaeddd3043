// gemv: the matrix-vector product of decoding. AMX multiplies bf16 only, so f32 uses vectors with AMX too.
#pragma once
#if ACT_BF16 && CPU_AMX
#include "cpu/gemm/gemv_amx.h"
#else
#include "cpu/gemm/gemv_vector.h"
#endif

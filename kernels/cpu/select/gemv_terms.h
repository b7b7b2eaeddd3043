// The inner step of a matrix-vector product by vectors.
#pragma once
#if ACT_BF16
#include "cpu/gemm/gemv_terms_bf16.h"
#else
#include "cpu/gemm/gemv_terms_f32.h"
#endif

// The packed words of AMX's tiles: pairs of bf16, or for f32 its bf16x3 split.
#pragma once
#if ACT_BF16
#include "cpu/gemm/pack_bf16.h"
#else
#include "cpu/gemm/pack_bf16x3.h"
#endif

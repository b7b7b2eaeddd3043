// The dtype of activations, `act`: float, or bf16 where ACT_BF16 is 1.
#pragma once
#if ACT_BF16
#include "cpu/simd/act_bf16.h"
#else
#include "cpu/simd/act_f32.h"
#endif

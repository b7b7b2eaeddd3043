// The dtype of activations, `act`: bf16 where ACT_BF16 is 1, otherwise float.
#pragma once
#if ACT_BF16
#include "gpu/simt/act_bf16.h"
#else
#include "gpu/simt/act_f32.h"
#endif

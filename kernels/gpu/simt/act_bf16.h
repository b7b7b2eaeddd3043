// Activations in bf16. Results are rounded to bf16, so exp and 1 / x are the chip's quick ones: see formulas.h.
#pragma once
#include "gpu/platform/common.h"

typedef bf16 act;
#define HIPGPT_QUICK

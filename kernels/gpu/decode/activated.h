// The activation function of a model, chosen when the kernel runs.
#pragma once
#include "gpu/select/platform.h"
#include "formulas.h"

// activation: 0 GELU, 1 ReLU, 2 ReLU^2.
DEVICE float activated(float hidden, int32_t activation) {
    return activation == 0 ? gelu(hidden).value : activation == 1 ? relu(hidden).value : relu2(hidden).value;
}

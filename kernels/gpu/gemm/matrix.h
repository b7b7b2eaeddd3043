// A GEMM's operand in global memory.
#pragma once
#include "gpu/simt/act_bf16.h"

// Rows of a matrix in memory are `stride` elements apart.
struct Matrix {
    const bf16* data;
    int64_t stride;
};

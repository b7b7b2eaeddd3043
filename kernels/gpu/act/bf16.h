// The dtype of activations, for the kernels of this compilation.
#pragma once
typedef bf16 act;
#define HIPGPT_QUICK

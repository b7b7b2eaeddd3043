// The dtype of activations, for the kernels of this compilation.
#pragma once
typedef float act;

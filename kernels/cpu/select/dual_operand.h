// DualOperand: a matrix that is packed once and read by two GEMMs.
#pragma once
#if CPU_AMX
#include "cpu/gemm/dual_operand_amx.h"
#else
#include "cpu/gemm/dual_operand_vector.h"
#endif

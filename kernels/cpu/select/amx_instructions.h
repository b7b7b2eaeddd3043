// AMX's instructions, or where CPU_AMX_EMULATED is 1 the same in plain C++, for tests on processors without AMX.
#pragma once
#if CPU_AMX_EMULATED
#include "cpu/gemm/amx_emulated.h"
#else
#include "cpu/gemm/amx_instructions.h"
#endif

// Plain stores in place of stores past the caches: for AMX those were slower, for other instruction sets nobody measured them.
#pragma once
#include "cpu/simd/vector.h"

constexpr bool CAN_STREAM = false;
inline void stream(float* target, Vector value) { vector_at(target) = value; }
inline void finish_streams() {}

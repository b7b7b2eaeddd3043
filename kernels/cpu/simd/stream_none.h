// Stores past the caches: none, because those of this instruction set were not measured or did not pay.
#pragma once
#include "cpu/simd/vector.h"

constexpr bool CAN_STREAM = false;
inline void stream(float* target, Vector value) { vector_at(target) = value; }
inline void finish_streams() {}

// Nothing is stored past the caches: for AMX that was slower, and other instruction sets were not measured.
#pragma once
#include "cpu/select/act.h"
#include "cpu/simd/vector.h"

constexpr bool CAN_STREAM = false;
inline void stream_row(act*, Vector, Vector) {}
inline void finish_streams() {}

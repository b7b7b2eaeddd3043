// load and store: activations to f32 and back, left to the compiler.
#pragma once
#include "cpu/select/act.h"
#include <algorithm>
#include <cstdint>

inline void load(float* target, const act* values, int64_t count) { std::copy_n(values, count, target); }
inline void store(act* target, const float* values, int64_t count) { std::copy_n(values, count, target); }

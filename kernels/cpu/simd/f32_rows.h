// Rows of activations as f32: the activations themselves, or where they are bf16, a buffer that is converted.
#pragma once
#include "cpu/select/convert.h"
#include <type_traits>

constexpr bool ACT_IS_F32 = std::is_same_v<act, float>;

// The values of a row, to be read.
inline const float* read_row(const act* values, float* buffer, int64_t count) {
    if (ACT_IS_F32) return reinterpret_cast<const float*>(values);
    load(buffer, values, count);
    return buffer;
}

// Where to write the values of a row. finish_row must follow.
inline float* begin_row(act* target, float* buffer) { return ACT_IS_F32 ? reinterpret_cast<float*>(target) : buffer; }
inline void finish_row(act* target, const float* buffer, int64_t count) {
    if constexpr (!ACT_IS_F32) store(target, buffer, count);
}

// A matrix of activations or weights by its strides, so that a transposed one is one too.
#pragma once
#include "cpu/select/act.h"
#include "cpu/simd/vector.h"
#include <cstdint>

// strip_gap: the columns may lie in strips of 2 LANES, so far apart beyond what their stride says.
struct Matrix {
    const act* data;
    int64_t row_stride, column_stride, strip_gap = 0;
    const act* at(int64_t row, int64_t column) const {
        return data + row * row_stride + column * column_stride + column / (2 * LANES) * strip_gap;
    }
};

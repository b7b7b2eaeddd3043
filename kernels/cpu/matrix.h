// A matrix of activations or weights by its strides, so that a transposed one is one too.
#pragma once
#include "act.h"
#include <algorithm>
#include <cstdint>

struct Matrix {
    const act* data;
    int64_t row_stride, column_stride;
    const act* at(int64_t row, int64_t column) const { return data + row * row_stride + column * column_stride; }
};

// A matrix of activations or weights, given by its strides, so that a transposed matrix is a Matrix too.
#pragma once
#include "cpu/select/act.h"
#include "cpu/simd/vector.h"
#include <cstdint>

struct Matrix {
    const act* data;
    int64_t row_stride, column_stride;
    const act* at(int64_t row, int64_t column) const { return data + row * row_stride + column * column_stride; }
};

// The fused operation of Muon's polynomial, as in epilogue.h: it combines the sums of gram gram with gram, of one matrix or
// several below each other, and adds to the diagonal.
#pragma once
#include "gpu/gemm/linear_layer.h"
#include "muon.h"

struct PolynomialOperation {
    static constexpr int OUTPUTS = 1;
    act* polynomial;
    MatrixSource<act> source;  // gram
    int side;                  // of a matrix
    float a, b, c;

    DEVICE_MEMBER void element(int row, int column, float sum, float gram, float (&outputs)[OUTPUTS]) const {
        outputs[0] = b * gram + c * sum + (row % side == column ? a : 0.0f);
    }

    template <int EACH = WIDTH>
    DEVICE_MEMBER auto fetch(int64_t row, int64_t column, int64_t count, bool wide) const {
        return source.fetch<EACH>(row, column, count, wide);
    }
    template <int EACH, class Fetched>
    DEVICE_MEMBER void store(int64_t row, int64_t column, const Values<EACH>& sums, const Fetched& fetched,
                             int64_t count, bool wide) const {
        Values<EACH> outputs;
        for (int i = 0; i < EACH; ++i) {
            float each[OUTPUTS];
            element(static_cast<int>(row), static_cast<int>(column) + i, sums.value[i], fetched[i], each);
            outputs.value[i] = each[0];
        }
        store_some(polynomial + row * side + column, outputs.value, count, wide);
    }
};

// inverse: 1 / f of muon.cpp's formula.
DEVICE PolynomialOperation polynomial_operation(act* polynomial, const act* gram, int64_t R, float inverse) {
    const float a = NEWTON_SCHULZ_A * inverse, b = NEWTON_SCHULZ_B * inverse * inverse * inverse;
    const float c = NEWTON_SCHULZ_C * inverse * inverse * inverse * inverse * inverse;
    return {polynomial, {gram, R}, static_cast<int>(R), a, b, c};
}

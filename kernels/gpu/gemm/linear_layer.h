// The fused operations of a linear layer's GEMMs, for the epilogue of any main loop. Formulas as in matmul.hip.
#pragma once
#include "gpu/gemm/epilogue.h"
#include "formulas.h"

// Sources: what sums are combined with, EACH neighbours at once. `packed` loads two, which are converted when they are
// used, and `vector` the 16 bytes from an element on. ROWS: 1 if all rows are combined with the same values.
struct NoSource {
    static constexpr int ROWS = 1;
    struct Nothing {
        DEVICE_MEMBER float operator[](int) const { return 0.0f; }
    };
    template <int EACH>
    DEVICE_MEMBER Nothing fetch(int64_t, int64_t, int64_t, bool) const {
        return {};
    }
    DEVICE_MEMBER Nothing packed(int64_t, int64_t) const { return {}; }
};

struct BiasSource {
    static constexpr int ROWS = 1;
    const act* bias;  // zeros if null
    DEVICE_MEMBER PackedPair packed(int64_t, int64_t column) const {
        return {bias ? *reinterpret_cast<const uint32_t*>(bias + column) : 0u};
    }
    template <int EACH>
    DEVICE_MEMBER Values<EACH> fetch(int64_t, int64_t column, int64_t count, bool wide) const {
        Values<EACH> added = {};
        if (bias) load_some(added.value, bias + column, count, wide);
        return added;
    }
};

template <class T>
struct MatrixSource {
    static constexpr int ROWS = 2;
    const T* matrix;
    int64_t columns;
    DEVICE_MEMBER Vector vector(int64_t row, int64_t column) const {
        return *reinterpret_cast<const Vector*>(matrix + row * columns + column);
    }
    template <int EACH>
    DEVICE_MEMBER Values<EACH> fetch(int64_t row, int64_t column, int64_t count, bool wide) const {
        Values<EACH> before;
        load_some(before.value, matrix + row * columns + column, count, wide);
        return before;
    }
};

// y = sums + bias.
DEVICE auto forward_operation(act* y, const act* bias, int64_t O) {
    return fused({y}, O, BiasSource{bias},
                 [](float sum, float added, float(&outputs)[1]) { outputs[0] = sum + added; });
}

// y = activation(sums + bias), and its slope there.
template <class Activation>
DEVICE auto activation_forward_operation(act* y, act* slope, const act* bias, int64_t O, const Activation& activation) {
    return fused({y, slope}, O, BiasSource{bias}, [=](float sum, float added, float(&outputs)[2]) {
        const Activated activated = activation(sum + added);
        outputs[0] = activated.value;
        outputs[1] = activated.slope;
    });
}

DEVICE auto gelu_forward_operation(act* y, act* slope, const act* bias, int64_t O) {
    return activation_forward_operation(y, slope, bias, O, [](float hidden) { return gelu(hidden); });
}

DEVICE auto relu_forward_operation(act* y, act* slope, const act* bias, int64_t O) {
    return activation_forward_operation(y, slope, bias, O, [](float hidden) { return relu(hidden); });
}

DEVICE auto relu2_forward_operation(act* y, act* slope, const act* bias, int64_t O) {
    return activation_forward_operation(y, slope, bias, O, [](float hidden) { return relu2(hidden); });
}

// target = sums.
DEVICE auto store_operation(act* target, int64_t columns) {
    return fused({target}, columns, NoSource{}, [](float sum, float, float(&outputs)[1]) { outputs[0] = sum; });
}

// dhidden = sums * slope: the gradient of an activation function's input.
DEVICE auto activation_backward_operation(act* dhidden, const act* slope, int64_t C) {
    return fused({dhidden}, C, MatrixSource<act>{slope, C},
                 [](float sum, float factor, float(&outputs)[1]) { outputs[0] = sum * factor; });
}

// dweight += sums.
DEVICE auto backward_weight_operation(float* dweight, int64_t C) {
    return fused({dweight}, C, MatrixSource<float>{dweight, C},
                 [](float sum, float before, float(&outputs)[1]) { outputs[0] = sum + before; });
}

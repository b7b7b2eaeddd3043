// swiglu_forward: y = silu(gate) * up, where silu(x) = x / (1 + e^-x). hidden (N, 2, C) row-major, act: gate, then up;
//   y (N, C), act. Minimum traffic: 3*N*C*sizeof(act) bytes. Shazeer 2020, arXiv:2002.05202.
//
// swiglu_backward: dgate = dy * up * silu'(gate); dup = dy * silu(gate). dhidden like hidden, overwritten; dy like y.
//   Minimum traffic: 5*N*C*sizeof(act) bytes.
#include "formulas.h"
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/convert.h"
#include "cpu/simd/vector.h"

constexpr int64_t BLOCK = 256;  // channels at once, so that their f32 values stay in L1

// Calls body(row, channel, count) for blocks of channels of all rows.
template <class Body>
static void each_block(int64_t N, int64_t C, const Body& body) {
    parallel_ranges(N, worth_a_thread(24 * C), [=](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n)
            for (int64_t c = 0; c < C; c += BLOCK) body(n, c, std::min(BLOCK, C - c));
    });
}

extern "C" void swiglu_forward(act* y, const act* hidden, int64_t N, int64_t C) {
    each_block(N, C, [=](int64_t n, int64_t c, int64_t count) {
        float gate[BLOCK], up[BLOCK];
        load(gate, hidden + 2 * n * C + c, count);
        load(up, hidden + (2 * n + 1) * C + c, count);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) gate[i] = silu(gate[i]) * up[i];
        store(y + n * C + c, gate, count);
    });
}

extern "C" void swiglu_backward(act* dhidden, const act* dy, const act* hidden, int64_t N, int64_t C) {
    each_block(N, C, [=](int64_t n, int64_t c, int64_t count) {
        float gate[BLOCK], up[BLOCK], gradient[BLOCK];
        load(gate, hidden + 2 * n * C + c, count);
        load(up, hidden + (2 * n + 1) * C + c, count);
        load(gradient, dy + n * C + c, count);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            const float dgate = gradient[i] * up[i] * silu_derivative(gate[i]);
            up[i] = gradient[i] * silu(gate[i]);
            gate[i] = dgate;
        }
        store(dhidden + 2 * n * C + c, gate, count);
        store(dhidden + (2 * n + 1) * C + c, up, count);
    });
}

CALLABLE(swiglu_forward)
CALLABLE(swiglu_backward)

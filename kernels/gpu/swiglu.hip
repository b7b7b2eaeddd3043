// swiglu_forward: y = silu(gate) * up, where silu(x) = x / (1 + e^-x). hidden (N, 2, C) row-major, act: gate, then up;
// y (N, C), act. Grid ceil(N*C / (THREADS*WIDTH)), a thread per WIDTH neighbours; if C is no multiple of WIDTH, the last
// thread of a row takes fewer. Minimum traffic: 3*N*C*sizeof(act) bytes. Shazeer 2020, arXiv:2002.05202.
//
// swiglu_backward: dgate = dy * up * silu'(gate); dup = dy * silu(gate). The same grid.
// Minimum traffic: 5*N*C*sizeof(act) bytes.
#include "gpu/simt/vector_io.h"
#include "formulas.h"

// The neighbours of a thread: their row, first channel and number, 0 beyond the last row.
struct Neighbours {
    int64_t n, c, count;

    static DEVICE_MEMBER Neighbours of_thread(int64_t N, int64_t C) {
        const int64_t each_row = (C + WIDTH - 1) / WIDTH, index = int64_t{blockIdx.x} * THREADS + threadIdx.x;
        const int64_t c = index % each_row * WIDTH, left = C - c;
        return {index / each_row, c, index / each_row >= N ? 0 : left < WIDTH ? left : WIDTH};
    }
};

KERNEL(THREADS) swiglu_forward(act* y, const act* hidden, int64_t N, int64_t C) {
    const Neighbours at = Neighbours::of_thread(N, C);
    if (at.count == 0) return;
    float gate[WIDTH], up[WIDTH];
    load_some(gate, hidden + 2 * at.n * C + at.c, at.count, is_wide(C));
    load_some(up, hidden + (2 * at.n + 1) * C + at.c, at.count, is_wide(C));
    for (int i = 0; i < WIDTH; ++i) gate[i] = silu(gate[i]) * up[i];
    store_some(y + at.n * C + at.c, gate, at.count, is_wide(C));
}

KERNEL(THREADS) swiglu_backward(act* dhidden, const act* dy, const act* hidden, int64_t N, int64_t C) {
    const Neighbours at = Neighbours::of_thread(N, C);
    if (at.count == 0) return;
    float gate[WIDTH], up[WIDTH], gradient[WIDTH];
    load_some(gate, hidden + 2 * at.n * C + at.c, at.count, is_wide(C));
    load_some(up, hidden + (2 * at.n + 1) * C + at.c, at.count, is_wide(C));
    load_some(gradient, dy + at.n * C + at.c, at.count, is_wide(C));
    for (int i = 0; i < WIDTH; ++i) {
        const float dgate = gradient[i] * up[i] * silu_derivative(gate[i]);
        up[i] = gradient[i] * silu(gate[i]);
        gate[i] = dgate;
    }
    store_some(dhidden + 2 * at.n * C + at.c, gate, at.count, is_wide(C));
    store_some(dhidden + (2 * at.n + 1) * C + at.c, up, at.count, is_wide(C));
}

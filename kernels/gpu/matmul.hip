// The products of a linear layer: formulas in kernels/cpu/matmul.cpp. For every chip and dtype; matmul_units.hip serves bf16
// where there are matrix units.
//
// One tiled product C (M, N) = A (M, K) B (K, N), A and B given by their strides, serves all three. A block makes a TILE x TILE
// piece of C, TILE the largest of 128, 64, 32, 16 that gives at least BLOCKS blocks: small products then still fill the chip.
// Its threads form GROUPS groups, each of which makes the whole piece, EACH x EACH elements a thread, from its share of K; at
// the end the groups' sums are added in order. DEPTH * GROUPS terms at a time are staged in shared memory.
// Grid: ceil(N / TILE) x ceil(M / TILE).
#include "platform.h"
#include "values.h"
#include "formulas.h"

constexpr int THREADS = 256, DEPTH = 16, BLOCKS = 128;

struct Matrix {
    const act* data;
    int64_t row_stride, column_stride;
};

DEVICE int tile_for(int64_t M, int64_t N) {
    int tile = 128;
    while (tile > 16 && ((M + tile - 1) / tile) * ((N + tile - 1) / tile) < BLOCKS) tile /= 2;
    return tile;
}

template <int TILE>
struct Product {
    static constexpr int EACH = TILE == 128 ? 8 : 4, SIDE = TILE / EACH, GROUP = SIDE * SIDE, GROUPS = THREADS / GROUP;
    static constexpr int STAGE = DEPTH * GROUPS, ROW = TILE + 1, MEMORY = 2 * STAGE * ROW;

    // Calls store(row, column, sum) for the elements inside C, and row_store(row, sum) for the sums of A's rows.
    template <class Store, class RowStore>
    static DEVICE_MEMBER void run(float* memory, Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Store& store,
                                  const RowStore& row_store) {
        float *a_part = memory, *b_part = memory + STAGE * ROW, sums[EACH][EACH] = {}, row_sum = 0.0f;
        const int group = threadIdx.x / GROUP, x = threadIdx.x % SIDE, y = threadIdx.x / SIDE % SIDE;
        const int64_t first_row = int64_t{blockIdx.y} * TILE, first_column = int64_t{blockIdx.x} * TILE;
        for (int64_t first = 0; first < K; first += STAGE) {
            stage(a_part, a.data, first_row, first, a.row_stride, a.column_stride, M, K);
            stage(b_part, b.data, first_column, first, b.column_stride, b.row_stride, N, K);
            __syncthreads();
            if (blockIdx.x == 0 && threadIdx.x < TILE)
                for (int k = 0; k < STAGE; ++k) row_sum += a_part[k * ROW + threadIdx.x];
#pragma unroll
            for (int k = 0; k < DEPTH; ++k) {
                const float *a_row = a_part + (group * DEPTH + k) * ROW + y, *b_row = b_part + (group * DEPTH + k) * ROW + x;
                float left[EACH];
                for (int r = 0; r < EACH; ++r) left[r] = a_row[r * SIDE];
                for (int c = 0; c < EACH; ++c) {
                    const float right = b_row[c * SIDE];
                    for (int r = 0; r < EACH; ++r) sums[r][c] += left[r] * right;
                }
            }
            __syncthreads();
        }
        if (GROUPS > 1) add_groups(memory, sums, group);
        if (group == 0)
#pragma unroll
            for (int r = 0; r < EACH; ++r)
#pragma unroll
                for (int c = 0; c < EACH; ++c) {
                    const int64_t row = first_row + y + r * SIDE, column = first_column + x + c * SIDE;
                    if (row < M && column < N) store(row, column, sums[r][c]);
                }
        if (blockIdx.x == 0 && threadIdx.x < TILE && first_row + threadIdx.x < M) row_store(first_row + threadIdx.x, row_sum);
    }

    // part[k][i] = source[first_i + i, first_k + k], zero outside. Neighbouring threads read along the stride of 1.
    static DEVICE_MEMBER void stage(float* part, const act* source, int64_t first_i, int64_t first_k, int64_t i_stride,
                                    int64_t k_stride, int64_t I, int64_t K) {
        for (int place = threadIdx.x; place < STAGE * TILE; place += THREADS) {
            const int k = k_stride == 1 ? place % STAGE : place / TILE, i = k_stride == 1 ? place / STAGE : place % TILE;
            const bool inside = first_i + i < I && first_k + k < K;
            part[k * ROW + i] = inside ? widen(source[(first_i + i) * i_stride + (first_k + k) * k_stride]) : 0.0f;
        }
    }

    // Group 0's sums += those of group 1, 2, ...
    static DEVICE_MEMBER void add_groups(float* memory, float (&sums)[EACH][EACH], int group) {
        const int thread = threadIdx.x % GROUP;
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < EACH; ++c) memory[((group * EACH + r) * EACH + c) * GROUP + thread] = sums[r][c];
        __syncthreads();
        if (group == 0)
            for (int other = 1; other < GROUPS; ++other)
                for (int r = 0; r < EACH; ++r)
                    for (int c = 0; c < EACH; ++c) sums[r][c] += memory[((other * EACH + r) * EACH + c) * GROUP + thread];
    }
};

constexpr int MEMORY = Product<16>::MEMORY;  // the largest
static_assert(MEMORY >= Product<128>::MEMORY && MEMORY >= Product<64>::MEMORY && MEMORY >= Product<32>::MEMORY, "");

template <class Store, class RowStore>
DEVICE void multiply(Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Store& store, const RowStore& row_store) {
    __shared__ float memory[MEMORY];
    switch (tile_for(M, N)) {
        case 128: return Product<128>::run(memory, a, b, M, N, K, store, row_store);
        case 64: return Product<64>::run(memory, a, b, M, N, K, store, row_store);
        case 32: return Product<32>::run(memory, a, b, M, N, K, store, row_store);
        default: return Product<16>::run(memory, a, b, M, N, K, store, row_store);
    }
}

struct Nothing {
    DEVICE_MEMBER void operator()(int64_t, float) const {}
};

// Calls store(place in y, sum + bias).
template <class Store>
DEVICE void forward(const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C, const Store& store) {
    multiply({x, C, 1}, {weight, 1, C}, N, O, C,
             [=](int64_t n, int64_t o, float sum) { store(n * O + o, sum + (bias ? widen(bias[o]) : 0.0f)); }, Nothing{});
}

// Calls store(place in dx, sum).
template <class Store>
DEVICE void backward_input(const act* dy, const act* weight, int64_t N, int64_t C, int64_t O, const Store& store) {
    multiply({dy, O, 1}, {weight, C, 1}, N, C, O, [=](int64_t n, int64_t c, float sum) { store(n * C + c, sum); }, Nothing{});
}

KERNEL(THREADS) matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, float sum) { narrow(y[i], sum); });
}

KERNEL(THREADS) matmul_gelu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                                    int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, float sum) {
        narrow(hidden[i], sum);
        narrow(y[i], gelu(sum));
    });
}

KERNEL(THREADS) matmul_relu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                                    int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, float sum) {
        narrow(hidden[i], sum);
        narrow(y[i], fmaxf(sum, 0.0f));
    });
}

KERNEL(THREADS) matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O) {
    backward_input(dy, weight, N, C, O, [=](int64_t i, float sum) { narrow(dx[i], sum); });
}

KERNEL(THREADS) matmul_gelu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N,
                                           int64_t C, int64_t O) {
    backward_input(dy, weight, N, C, O,
                   [=](int64_t i, float sum) { narrow(dhidden[i], sum * gelu_derivative(widen(hidden[i]))); });
}

KERNEL(THREADS) matmul_relu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N,
                                           int64_t C, int64_t O) {
    backward_input(dy, weight, N, C, O,
                   [=](int64_t i, float sum) { narrow(dhidden[i], widen(hidden[i]) > 0.0f ? sum : 0.0f); });
}

// dbias is the sum of the rows of A, dy^T.
KERNEL(THREADS) matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C,
                                       int64_t N) {
    multiply({dy, 1, O}, {x, C, 1}, O, C, N, [=](int64_t o, int64_t c, float sum) { dweight[o * C + c] += sum; },
             [=](int64_t o, float sum) {
                 if (dbias) dbias[o] += sum;
             });
}

// The GEMMs of a linear layer, for every chip and dtype. matmul_mma.hip serves bf16 where a chip has matrix units.
// matmul_forward:         y = x weight^T + bias       y (N, O), x (N, C), weight (O, C), bias (O) or null
// matmul_backward_input:  dx = dy weight              dx (N, C), dy (N, O)
// matmul_backward_weight: dweight += dy^T x, dbias += sum over rows of dy
// matmul_gelu_forward, matmul_relu_forward, matmul_relu2_forward: with hidden = x weight^T + bias,
//     y = activation(hidden), slope = activation'(hidden)
// matmul_activation_backward_input: dhidden = (dy weight) * slope
// All row-major, act; dweight, dbias and sums f32. Operations: 2*N*C*O each.
// Minimum traffic: (N*O + N*C + O*C)*sizeof(act) bytes, where dweight counts 8 bytes per element; slope adds N*O
// elements.
//
// One tiled GEMM, C (M, N) = A (M, K) B (K, N) with A and B given by their strides, serves all of them.
// Grid ceil(N / TILE) x ceil(M / TILE): a block computes a tile of TILE x TILE. TILE is the largest of LARGEST_TILE,
// its half, ... SMALLEST_TILE that gives at least MATMUL_BLOCKS blocks, because a small GEMM with large tiles would
// leave most of the chip idle. A small tile does not occupy all threads, so the threads form GROUPS groups: each
// computes the whole tile over its share of K, and the groups' sums are added in order at the end.
#include "gpu/simt/vector_io.h"
#include "formulas.h"

constexpr int STAGE_K = 16;  // of K, for each group, in shared memory at once

// Element (row, column) is at data[row * row_stride + column * column_stride].
struct Matrix {
    const act* data;
    int64_t row_stride, column_stride;
};

DEVICE int tile_for(int64_t M, int64_t N) {
    int tile = LARGEST_TILE;
    while (tile > SMALLEST_TILE && ((M + tile - 1) / tile) * ((N + tile - 1) / tile) < MATMUL_BLOCKS) tile /= 2;
    return tile;
}

// A thread computes EACH x EACH elements of the tile, ALONG apart, so that neighbouring threads read neighbouring
// elements of a stage.
template <int TILE>
struct Gemm {
    static constexpr int EACH = TILE == 128 ? 8 : 4, ALONG = TILE / EACH, GROUP = ALONG * ALONG,
                         GROUPS = THREADS / GROUP;
    static constexpr int STAGE = STAGE_K * GROUPS, ROW = TILE + 1, MEMORY = 2 * STAGE * ROW;

    // Calls store(row, column, sum) for the elements inside C, and row_store(row, sum) for the sums of A's rows.
    template <class Store, class RowStore>
    static DEVICE_MEMBER void run(float* memory, Matrix a, Matrix b, int64_t M, int64_t N, int64_t K,
                                  const Store& store, const RowStore& row_store) {
        float *a_stage = memory, *b_stage = memory + STAGE * ROW, sums[EACH][EACH] = {}, row_sum = 0.0f;
        const int group = threadIdx.x / GROUP, x = threadIdx.x % ALONG, y = threadIdx.x / ALONG % ALONG;
        const int64_t first_row = int64_t{blockIdx.y} * TILE, first_column = int64_t{blockIdx.x} * TILE;
        for (int64_t first = 0; first < K; first += STAGE) {
            load_stage(a_stage, a.data, first_row, first, a.row_stride, a.column_stride, M, K);
            load_stage(b_stage, b.data, first_column, first, b.column_stride, b.row_stride, N, K);
            __syncthreads();
            if (blockIdx.x == 0 && threadIdx.x < TILE)
                for (int k = 0; k < STAGE; ++k) row_sum += a_stage[k * ROW + threadIdx.x];
#pragma unroll
            for (int k = 0; k < STAGE_K; ++k) {
                const float* a_row = a_stage + (group * STAGE_K + k) * ROW + y;
                const float* b_row = b_stage + (group * STAGE_K + k) * ROW + x;
                float left[EACH];
                for (int r = 0; r < EACH; ++r) left[r] = a_row[r * ALONG];
                for (int c = 0; c < EACH; ++c) {
                    const float right = b_row[c * ALONG];
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
                    const int64_t row = first_row + y + r * ALONG, column = first_column + x + c * ALONG;
                    if (row < M && column < N) store(row, column, sums[r][c]);
                }
        if (blockIdx.x == 0 && threadIdx.x < TILE && first_row + threadIdx.x < M)
            row_store(first_row + threadIdx.x, row_sum);
    }

    // stage[k][i] = source[first_i + i, first_k + k], zero outside. Neighbouring threads read along the stride of 1.
    static DEVICE_MEMBER void load_stage(float* stage, const act* source, int64_t first_i, int64_t first_k,
                                         int64_t i_stride, int64_t k_stride, int64_t I, int64_t K) {
        for (int index = threadIdx.x; index < STAGE * TILE; index += THREADS) {
            const int k = k_stride == 1 ? index % STAGE : index / TILE,
                      i = k_stride == 1 ? index / STAGE : index % TILE;
            const bool inside = first_i + i < I && first_k + k < K;
            stage[k * ROW + i] = inside ? widen(source[(first_i + i) * i_stride + (first_k + k) * k_stride]) : 0.0f;
        }
    }

    // Adds the sums of groups 1, 2, ... to those of group 0, in this order.
    static DEVICE_MEMBER void add_groups(float* memory, float (&sums)[EACH][EACH], int group) {
        const int thread = threadIdx.x % GROUP;
        for (int r = 0; r < EACH; ++r)
            for (int c = 0; c < EACH; ++c) memory[((group * EACH + r) * EACH + c) * GROUP + thread] = sums[r][c];
        __syncthreads();
        if (group == 0)
            for (int other = 1; other < GROUPS; ++other)
                for (int r = 0; r < EACH; ++r)
                    for (int c = 0; c < EACH; ++c)
                        sums[r][c] += memory[((other * EACH + r) * EACH + c) * GROUP + thread];
    }
};

constexpr int MEMORY = Gemm<16>::MEMORY;  // the largest of the four
static_assert(LARGEST_TILE == 128 && SMALLEST_TILE == 16, "the cases of multiply");
static_assert(MEMORY >= Gemm<128>::MEMORY && MEMORY >= Gemm<64>::MEMORY && MEMORY >= Gemm<32>::MEMORY, "");

template <class Store, class RowStore>
DEVICE void multiply(Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Store& store,
                     const RowStore& row_store) {
    __shared__ float memory[MEMORY];
    switch (tile_for(M, N)) {
        case 128:
            return Gemm<128>::run(memory, a, b, M, N, K, store, row_store);
        case 64:
            return Gemm<64>::run(memory, a, b, M, N, K, store, row_store);
        case 32:
            return Gemm<32>::run(memory, a, b, M, N, K, store, row_store);
        default:
            return Gemm<16>::run(memory, a, b, M, N, K, store, row_store);
    }
}

struct NoRowSums {
    DEVICE_MEMBER void operator()(int64_t, float) const {}
};

// Calls store(index in y, sum + bias).
template <class Store>
DEVICE void forward(const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C,
                    const Store& store) {
    multiply(
        {x, C, 1}, {weight, 1, C}, N, O, C,
        [=](int64_t n, int64_t o, float sum) { store(n * O + o, sum + (bias ? widen(bias[o]) : 0.0f)); }, NoRowSums{});
}

DEVICE void narrow_both(act* y, act* slope, int64_t i, const Activated& activated) {
    narrow(y[i], activated.value);
    narrow(slope[i], activated.slope);
}

// Calls store(index in dx, sum).
template <class Store>
DEVICE void backward_input(const act* dy, const act* weight, int64_t N, int64_t C, int64_t O, const Store& store) {
    multiply(
        {dy, O, 1}, {weight, C, 1}, N, C, O, [=](int64_t n, int64_t c, float sum) { store(n * C + c, sum); },
        NoRowSums{});
}

KERNEL(THREADS)
matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, float sum) { narrow(y[i], sum); });
}

KERNEL(THREADS)
matmul_gelu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, float sum) { narrow_both(y, slope, i, gelu(sum)); });
}

KERNEL(THREADS)
matmul_relu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                    int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, float sum) { narrow_both(y, slope, i, relu(sum)); });
}

KERNEL(THREADS)
matmul_relu2_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                     int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, float sum) { narrow_both(y, slope, i, relu2(sum)); });
}

KERNEL(THREADS) matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O) {
    backward_input(dy, weight, N, C, O, [=](int64_t i, float sum) { narrow(dx[i], sum); });
}

KERNEL(THREADS)
matmul_activation_backward_input(act* dhidden, const act* dy, const act* weight, const act* slope, int64_t N, int64_t C,
                                 int64_t O) {
    backward_input(dy, weight, N, C, O, [=](int64_t i, float sum) { narrow(dhidden[i], sum * widen(slope[i])); });
}

// dbias = the sums of A's rows, because A is dy^T.
KERNEL(THREADS)
matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C, int64_t N) {
    multiply(
        {dy, 1, O}, {x, C, 1}, O, C, N, [=](int64_t o, int64_t c, float sum) { dweight[o * C + c] += sum; },
        [=](int64_t o, float sum) {
            if (dbias) dbias[o] += sum;
        });
}

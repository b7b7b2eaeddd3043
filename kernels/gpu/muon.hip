// Muon: a matrix's momentum, orthogonalized, is its update. Formulas, shapes and sources as in kernels/cpu/muon.cpp.
//
// muon_direction, muon_update: grid M * ceil(O / MUON_TILE) * ceil(C / MUON_TILE), a block per square tile of weights. A
// tile of `direction` passes through shared memory, so that global memory is accessed along rows on both sides even if
// `direction` is transposed. Minimum traffic: 16*M*O*C + M*O*C*sizeof(act) bytes and 8*M*O*C + M*O*C*sizeof(act) bytes;
// the copy adds M*O*C*sizeof(act).
//
// newton_schulz_*: for every chip and dtype; muon_mma.hip serves bf16 where a chip has matrix units, muon_tma.hip
// large matrices on Hopper.
// Grid M * ceil(rows / MUON_GEMM_TILE) * ceil(columns / MUON_GEMM_TILE): a block computes a square tile of one matrix's
// product, a thread EACH x EACH elements of it. Sums in f32. Minimum traffic of each: its tensors once.
#include "gpu/simt/vector_io.h"
#include "gpu/simt/reduce.h"
#include "formulas.h"
#include "muon.h"
#include "step_state.h"

constexpr int ROWS_AT_ONCE = THREADS / MUON_TILE;

// The tile of weights of a block, and how `direction` is addressed.
struct WeightTile {
    int64_t matrix, row, column, O, C;

    static DEVICE_MEMBER WeightTile of_block(int64_t O, int64_t C) {
        const int64_t across = (C + MUON_TILE - 1) / MUON_TILE, down = (O + MUON_TILE - 1) / MUON_TILE;
        const int64_t tile = blockIdx.x % (across * down);
        return {blockIdx.x / (across * down), tile / across * MUON_TILE, tile % across * MUON_TILE, O, C};
    }

    // Calls body(index in weights, row of the tile, column of the tile) for this thread's elements.
    template <class Body>
    DEVICE_MEMBER void each_weight(const Body& body) const {
        const int c = threadIdx.x % MUON_TILE;
        for (int r = threadIdx.x / MUON_TILE; r < MUON_TILE; r += ROWS_AT_ONCE)
            if (row + r < O && column + c < C) body((matrix * O + row + r) * C + column + c, r, c);
    }

    // The same for the elements of direction, whose rows are the columns of weights if it is transposed.
    template <class Body>
    DEVICE_MEMBER void each_direction(const Body& body) const {
        if (O <= C) return each_weight(body);
        const int r = threadIdx.x % MUON_TILE;
        for (int c = threadIdx.x / MUON_TILE; c < MUON_TILE; c += ROWS_AT_ONCE)
            if (row + r < O && column + c < C) body((matrix * C + column + c) * O + row + r, r, c);
    }
};

KERNEL(THREADS)
muon_direction(act* direction, float* momentum, float* gradients, const float* norm, int64_t M, int64_t R, int64_t L,
               int64_t O, int64_t C, float clip_norm) {
    __shared__ float values[MUON_TILE][MUON_TILE + 1];
    const float clip = clip_norm / *norm, clip_factor = clip < 1.0f ? clip : 1.0f;
    const WeightTile tile = WeightTile::of_block(O, C);
    tile.each_weight([&](int64_t i, int r, int c) {
        values[r][c] = muon_direction_element(momentum[i], gradients[i], clip_factor);
        gradients[i] = 0.0f;
    });
    __syncthreads();
    tile.each_direction([&](int64_t i, int r, int c) { narrow(direction[i], values[r][c]); });
}

KERNEL(THREADS)
muon_update(float* weights, act* copy, const act* direction, const float* schedule, const int32_t* counters, int64_t M,
            int64_t O, int64_t C, int64_t R, int64_t L, int64_t K, float scale, float weight_decay) {
    __shared__ float values[MUON_TILE][MUON_TILE + 1];
    const StepState& state = *reinterpret_cast<const StepState*>(counters);
    const float rate = reinterpret_cast<const ScheduleRow*>(schedule)[state.step % K].learning_rate;
    const WeightTile tile = WeightTile::of_block(O, C);
    tile.each_direction([&](int64_t i, int r, int c) { values[r][c] = widen(direction[i]); });
    __syncthreads();
    tile.each_weight([&](int64_t i, int r, int c) {
        weights[i] = muon_updated(weights[i], values[r][c], rate, scale, weight_decay);
        if (copy) narrow(copy[i], weights[i]);
    });
}

constexpr int EACH = 4, ALONG = MUON_GEMM_TILE / EACH, STAGE_K = 16;
static_assert(ALONG * ALONG == THREADS, "a thread per EACH x EACH elements");

// C (rows, columns) = A (rows, K) B (K, columns), B given by its strides. Calls store(row, column, sum).
template <class Store>
DEVICE void multiply(const act* a, const act* b, int64_t b_row_stride, int64_t b_column_stride, int64_t tile,
                     int64_t rows, int64_t columns, int64_t K, const Store& store) {
    __shared__ float a_stage[STAGE_K][MUON_GEMM_TILE + 1], b_stage[STAGE_K][MUON_GEMM_TILE + 1];
    const int64_t across = (columns + MUON_GEMM_TILE - 1) / MUON_GEMM_TILE;
    const int64_t first_row = tile / across * MUON_GEMM_TILE, first_column = tile % across * MUON_GEMM_TILE;
    const int x = threadIdx.x % ALONG, y = threadIdx.x / ALONG;
    float sums[EACH][EACH] = {};
    for (int64_t first = 0; first < K; first += STAGE_K) {
        for (int index = threadIdx.x; index < STAGE_K * MUON_GEMM_TILE; index += THREADS) {
            const int k = index % STAGE_K, i = index / STAGE_K;
            const bool inside_k = first + k < K;
            a_stage[k][i] = inside_k && first_row + i < rows ? widen(a[(first_row + i) * K + first + k]) : 0.0f;
            const int64_t offset = (first + k) * b_row_stride + (first_column + i) * b_column_stride;
            b_stage[k][i] = inside_k && first_column + i < columns ? widen(b[offset]) : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < STAGE_K; ++k)
            for (int r = 0; r < EACH; ++r)
                for (int c = 0; c < EACH; ++c) sums[r][c] += a_stage[k][y + r * ALONG] * b_stage[k][x + c * ALONG];
        __syncthreads();
    }
    for (int r = 0; r < EACH; ++r)
        for (int c = 0; c < EACH; ++c) {
            const int64_t row = first_row + y + r * ALONG, column = first_column + x + c * ALONG;
            if (row < rows && column < columns) store(row, column, sums[r][c]);
        }
}

DEVICE int64_t tiles_of(int64_t rows, int64_t columns) {
    return ((rows + MUON_GEMM_TILE - 1) / MUON_GEMM_TILE) * ((columns + MUON_GEMM_TILE - 1) / MUON_GEMM_TILE);
}

KERNEL(THREADS) newton_schulz_gram(act* gram, const act* x, int64_t M, int64_t R, int64_t L) {
    const int64_t m = blockIdx.x / tiles_of(R, R);
    const act* matrix = x + m * R * L;
    multiply(matrix, matrix, 1, L, blockIdx.x % tiles_of(R, R), R, R, L,
             [=](int64_t row, int64_t column, float sum) { narrow(gram[(m * R + row) * R + column], sum); });
}

// inverse: 1 / f of muon.cpp's formula.
DEVICE void polynomial_of(act* polynomial, const act* gram, int64_t m, int64_t R, float inverse) {
    const float b = NEWTON_SCHULZ_B * inverse * inverse * inverse;
    const float c = NEWTON_SCHULZ_C * inverse * inverse * inverse * inverse * inverse;
    const act* matrix = gram + m * R * R;
    multiply(matrix, matrix, R, 1, blockIdx.x % tiles_of(R, R), R, R, R, [=](int64_t row, int64_t column, float sum) {
        const float diagonal = row == column ? NEWTON_SCHULZ_A * inverse : 0.0f;
        narrow(polynomial[(m * R + row) * R + column], b * widen(matrix[row * R + column]) + c * sum + diagonal);
    });
}

KERNEL(THREADS) newton_schulz_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R) {
    polynomial_of(polynomial, gram, blockIdx.x / tiles_of(R, R), R, 1.0f);
}

KERNEL(THREADS) newton_schulz_first_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R) {
    const int64_t m = blockIdx.x / tiles_of(R, R);
    float trace = 0.0f;
    for (int64_t r = threadIdx.x; r < R; r += THREADS) trace += widen(gram[(m * R + r) * R + r]);
    trace = block_sum<THREADS>(trace);
    polynomial_of(polynomial, gram, m, R, 1.0f / (sqrtf(trace) + NEWTON_SCHULZ_EPSILON));
}

KERNEL(THREADS) newton_schulz_step(act* y, const act* polynomial, const act* x, int64_t M, int64_t R, int64_t L) {
    const int64_t m = blockIdx.x / tiles_of(R, L);
    multiply(polynomial + m * R * R, x + m * R * L, L, 1, blockIdx.x % tiles_of(R, L), R, L, R,
             [=](int64_t row, int64_t column, float sum) { narrow(y[(m * R + row) * L + column], sum); });
}

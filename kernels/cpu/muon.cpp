// Muon: a matrix's momentum, orthogonalized, is its update. Jordan et al. 2024, "Muon: an optimizer for hidden layers in
// neural networks"; Bernstein & Newhouse 2024, arXiv:2409.20325. Constants and formulas of elements: muon.h.
// M matrices at once; R <= L are the sides of each. weights, momentum, gradients (M, O, C) f32 row-major; direction, x
// (M, R, L), act: transposed if O > C.
//
// muon_direction: with g = gradient * min(1, clip_norm / norm), momentum = 0.95 momentum + 0.05 g, and
//   direction = 0.95 momentum + 0.05 g. The gradients are set to 0. Minimum traffic: 16*M*O*C + M*O*C*sizeof(act) bytes.
//
// newton_schulz_gram: gram = x x^T. gram, polynomial (M, R, R), act, symmetric. Operations: 2*M*R*R*L.
// newton_schulz_polynomial: polynomial = a I + b gram + c gram gram. Operations: 2*M*R*R*R.
// newton_schulz_first_polynomial: the same for x / f in place of x, divided by f, where f = sqrt(trace(gram)) + 1e-7:
//   (a I + b gram / f^2 + c gram gram / f^4) / f. The trace of x x^T is the square of the Frobenius norm of x.
// newton_schulz_step: y = polynomial x, that is a x + b (x x^T) x + c (x x^T)^2 x. y (M, R, L). Operations: 2*M*R*R*L.
//   Minimum traffic of each: its tensors once.
//
// muon_update: weight -= rate * (scale * direction + weight_decay * weight); rate is the learning rate of the schedule's
//   row (ScheduleRow) step % K. copy (M, O, C), act, or null: the new weights rounded.
//   Minimum traffic: 8*M*O*C + M*O*C*sizeof(act) bytes, with a copy 2*M*O*C*sizeof(act) for the second term.
#include "formulas.h"
#include "muon.h"
#include "step_state.h"
#include "cpu/gemm/blocked_product.h"
#include "cpu/runtime/call.h"
#include "cpu/select/convert.h"
#include <cmath>

constexpr int64_t BLOCK = 32;  // rows of weights that are transposed together, so that stores fill whole cache lines

// Calls body(matrix, row, rows) for blocks of at most BLOCK rows of all matrices, on all threads.
template <class Body>
static void each_block(int64_t M, int64_t O, int64_t C, const Body& body) {
    const int64_t blocks = (O + BLOCK - 1) / BLOCK;
    parallel_ranges(M * blocks, worth_a_thread(8 * BLOCK * C), [=](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
            const int64_t row = block % blocks * BLOCK;
            body(block / blocks, row, std::min(BLOCK, O - row));
        }
    });
}

// Calls body(matrix) for all matrices: a thread takes whole matrices, unless there are fewer of them than threads; then
// all threads share each matrix.
template <class Body>
static void each_matrix(int64_t M, int64_t operations, const Body& body) {
    const auto range = [=](int64_t begin, int64_t end) {
        for (int64_t m = begin; m < end; ++m) body(m);
    };
    if (M < thread_count()) return range(0, M);
    parallel_ranges(M, worth_a_thread(operations), range);
}

extern "C" void muon_direction(act* direction, float* momentum, float* gradients, const float* norm, int64_t M,
                               int64_t R, int64_t L, int64_t O, int64_t C, float clip_norm) {
    const float clip = clip_norm / *norm, clip_factor = clip < 1.0f ? clip : 1.0f;
    const bool transposed = O > C;
    each_block(M, O, C, [=](int64_t m, int64_t first, int64_t rows) {
        float* const momentum_rows = momentum + (m * O + first) * C;
        float* const gradient_rows = gradients + (m * O + first) * C;
        float values[BLOCK];
        for (int64_t i = 0; i < rows * C && !transposed; i += BLOCK) {
            const int64_t count = std::min(BLOCK, rows * C - i);
#pragma omp simd
            for (int64_t j = 0; j < count; ++j)
                values[j] = muon_direction_element(momentum_rows[i + j], gradient_rows[i + j], clip_factor);
            store(direction + (m * R + first) * L + i, values, count);
        }
        for (int64_t c = 0; c < C && transposed; ++c) {
            for (int64_t r = 0; r < rows; ++r)
                values[r] = muon_direction_element(momentum_rows[r * C + c], gradient_rows[r * C + c], clip_factor);
            store(direction + (m * R + c) * L + first, values, rows);
        }
        std::fill_n(gradient_rows, rows * C, 0.0f);
    });
}

extern "C" void newton_schulz_gram(act* gram, const act* x, int64_t M, int64_t R, int64_t L) {
    each_matrix(M, 2 * R * R * L, [=](int64_t m) {
        const act* const matrix = x + m * R * L;
        gemm(R, R, L, {matrix, L, 1}, {matrix, 1, L},
             [=](int64_t row, int64_t column, const float* sums, int64_t count) {
                 store(gram + (m * R + row) * R + column, sums, count);
             });
    });
}

// polynomial = (a I + b gram / f^2 + c gram gram / f^4) / f for one matrix (R, R); inverse: 1 / f.
static void polynomial_of(act* polynomial, const act* gram, int64_t R, float inverse) {
    const float a = NEWTON_SCHULZ_A * inverse, b = NEWTON_SCHULZ_B * inverse * inverse * inverse;
    const float c = NEWTON_SCHULZ_C * inverse * inverse * inverse * inverse * inverse;
    gemm(R, R, R, {gram, R, 1}, {gram, R, 1}, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        float values[EPILOGUE_COLUMNS];
        load(values, gram + row * R + column, count);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) values[i] = b * values[i] + c * sums[i];
        if (column <= row && row < column + count) values[row - column] += a;
        store(polynomial + row * R + column, values, count);
    });
}

extern "C" void newton_schulz_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R) {
    each_matrix(M, 2 * R * R * R, [=](int64_t m) { polynomial_of(polynomial + m * R * R, gram + m * R * R, R, 1.0f); });
}

extern "C" void newton_schulz_first_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R) {
    each_matrix(M, 2 * R * R * R, [=](int64_t m) {
        float trace = 0;
        for (int64_t r = 0; r < R; ++r) trace += gram[(m * R + r) * R + r];
        polynomial_of(polynomial + m * R * R, gram + m * R * R, R, 1.0f / (std::sqrt(trace) + NEWTON_SCHULZ_EPSILON));
    });
}

extern "C" void newton_schulz_step(act* y, const act* polynomial, const act* x, int64_t M, int64_t R, int64_t L) {
    each_matrix(M, 2 * R * R * L, [=](int64_t m) {
        gemm(R, L, R, {polynomial + m * R * R, R, 1}, {x + m * R * L, L, 1},
             [=](int64_t row, int64_t column, const float* sums, int64_t count) {
                 store(y + (m * R + row) * L + column, sums, count);
             });
    });
}

extern "C" void muon_update(float* weights, act* copy, const act* direction, const float* schedule,
                            const int32_t* counters, int64_t M, int64_t O, int64_t C, int64_t R, int64_t L, int64_t K,
                            float scale, float weight_decay) {
    const StepState& now = *reinterpret_cast<const StepState*>(counters);
    const float rate = reinterpret_cast<const ScheduleRow*>(schedule)[now.step % K].learning_rate;
    const bool transposed = O > C;
    each_block(M, O, C, [=](int64_t m, int64_t first, int64_t rows) {
        float* const weight_rows = weights + (m * O + first) * C;
        float values[BLOCK];
        for (int64_t i = 0; i < rows * C && !transposed; i += BLOCK) {
            const int64_t count = std::min(BLOCK, rows * C - i);
            load(values, direction + (m * R + first) * L + i, count);
#pragma omp simd
            for (int64_t j = 0; j < count; ++j)
                weight_rows[i + j] = muon_updated(weight_rows[i + j], values[j], rate, scale, weight_decay);
        }
        for (int64_t c = 0; c < C && transposed; ++c) {
            load(values, direction + (m * R + c) * L + first, rows);
            for (int64_t r = 0; r < rows; ++r)
                weight_rows[r * C + c] = muon_updated(weight_rows[r * C + c], values[r], rate, scale, weight_decay);
        }
        if (copy) store(copy + (m * O + first) * C, weight_rows, rows * C);
    });
}

CALLABLE(muon_direction)
CALLABLE(newton_schulz_gram)
CALLABLE(newton_schulz_polynomial)
CALLABLE(newton_schulz_first_polynomial)
CALLABLE(newton_schulz_step)
CALLABLE(muon_update)

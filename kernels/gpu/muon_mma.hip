// The GEMMs of Muon's Newton-Schulz steps in bf16 by matrix instructions: formulas and shapes as in muon.hip.
//
// Grid ceil(columns / BLOCK_TILE) x ceil(rows / BLOCK_TILE) x M: a block along z per matrix, so that a launch fills the
// chip although single matrices are small. The GEMM is that of matmul_mma.hip, of select/mainloop.h. gram and
// polynomial are symmetric, so either operand order reads rows of K.
// Minimum traffic of each: its tensors once.
#define GEMM_PER_Z 1
#include "gpu/select/mainloop.h"
#include "gpu/gemm/linear_layer.h"
#include "gpu/simt/reduce.h"
#include "muon.h"

// C (M, N) = A B^T or A B, stored in `target`.
template <bool B_K_CONTIGUOUS>
DEVICE void multiply(act* target, Matrix a, Matrix b, int64_t M, int64_t N, int64_t K) {
    Gemm<true, B_K_CONTIGUOUS>::run(a, b, M, N, K, store_operation(target, N), NoRowSums{}, {nullptr, WHOLE_K, 1});
}

KERNEL(GEMM_THREADS) newton_schulz_gram(act* gram, const act* x, int64_t M, int64_t R, int64_t L) {
    const act* matrix = x + blockIdx.z * R * L;
    multiply<true>(gram + blockIdx.z * R * R, {matrix, L}, {matrix, L}, R, R, L);
}

// What an epilogue does with the sums of gram gram: a fused operation as in epilogue.h that looks for the diagonal.
struct PolynomialOperation {
    act* polynomial;
    MatrixSource<act> gram;
    int64_t R;
    float a, b, c;

    DEVICE_MEMBER Segment fetch(int64_t row, int64_t column, int64_t count, bool wide) const {
        return gram.fetch<WIDTH>(row, column, count, wide);
    }
    DEVICE_MEMBER void store(int64_t row, int64_t column, Segment& sums, const Segment& gram_values, int64_t count,
                             bool wide) const {
        for (int i = 0; i < WIDTH; ++i)
            sums.value[i] = b * gram_values.value[i] + c * sums.value[i] + (row == column + i ? a : 0.0f);
        store_some(polynomial + row * R + column, sums.value, count, wide);
    }
};

// inverse: 1 / f of muon.cpp's formula.
DEVICE void polynomial_of(act* polynomial, const act* gram, int64_t R, float inverse) {
    const float a = NEWTON_SCHULZ_A * inverse, b = NEWTON_SCHULZ_B * inverse * inverse * inverse;
    const float c = NEWTON_SCHULZ_C * inverse * inverse * inverse * inverse * inverse;
    const PolynomialOperation operation = {polynomial, {gram, R}, R, a, b, c};
    Gemm<true, true>::run({gram, R}, {gram, R}, R, R, R, operation, NoRowSums{}, {nullptr, WHOLE_K, 1});
}

KERNEL(GEMM_THREADS) newton_schulz_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R) {
    polynomial_of(polynomial + blockIdx.z * R * R, gram + blockIdx.z * R * R, R, 1.0f);
}

KERNEL(GEMM_THREADS) newton_schulz_first_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R) {
    const act* matrix = gram + blockIdx.z * R * R;
    float trace = 0.0f;  // every wave sums it up by itself, because the GEMM takes all of the shared memory
    for (int64_t r = threadIdx.x % WAVE; r < R; r += WAVE) trace += widen(matrix[r * R + r]);
    trace = wave_sum(trace);
    polynomial_of(polynomial + blockIdx.z * R * R, matrix, R, 1.0f / (sqrtf(trace) + NEWTON_SCHULZ_EPSILON));
}

KERNEL(GEMM_THREADS) newton_schulz_step(act* y, const act* polynomial, const act* x, int64_t M, int64_t R, int64_t L) {
    multiply<false>(y + blockIdx.z * R * L, {polynomial + blockIdx.z * R * R, R}, {x + blockIdx.z * R * L, L}, R, L, R);
}

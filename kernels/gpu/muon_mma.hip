// The GEMMs of Muon's Newton-Schulz steps in bf16 by matrix instructions: formulas and shapes as in muon.hip.
//
// Grid ceil(columns / BLOCK_TILE) x ceil(rows / BLOCK_TILE) x M: a block along z per matrix, so that a launch fills the
// chip although single matrices are small. The GEMM is that of matmul_mma.hip, of select/mainloop.h. gram and
// polynomial are symmetric, so either operand order reads rows of K.
// Minimum traffic of each: its tensors once.
#define GEMM_PER_Z 1
#include "gpu/select/mainloop.h"
#include "gpu/gemm/linear_layer.h"
#include "gpu/gemm/polynomial.h"
#include "gpu/simt/reduce.h"

// C (M, N) = A B^T or A B, stored in `target`.
template <bool B_K_CONTIGUOUS>
DEVICE void multiply(act* target, Matrix a, Matrix b, int64_t M, int64_t N, int64_t K) {
    Gemm<true, B_K_CONTIGUOUS>::run(a, b, M, N, K, store_operation(target, N), NoRowSums{}, {nullptr, WHOLE_K, 1});
}

GEMM_KERNEL newton_schulz_gram(act* gram, const act* x, int64_t M, int64_t R, int64_t L) {
    const act* matrix = x + blockIdx.z * R * L;
    multiply<true>(gram + blockIdx.z * R * R, {matrix, L}, {matrix, L}, R, R, L);
}

DEVICE void polynomial_of(act* polynomial, const act* gram, int64_t R, float inverse) {
    const PolynomialOperation operation = polynomial_operation(polynomial, gram, R, inverse);
    Gemm<true, true>::run({gram, R}, {gram, R}, R, R, R, operation, NoRowSums{}, {nullptr, WHOLE_K, 1});
}

GEMM_KERNEL newton_schulz_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R) {
    polynomial_of(polynomial + blockIdx.z * R * R, gram + blockIdx.z * R * R, R, 1.0f);
}

GEMM_KERNEL newton_schulz_first_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R) {
    const act* matrix = gram + blockIdx.z * R * R;
    float trace = 0.0f;  // every wave sums it up by itself, because the GEMM takes all of the shared memory
    for (int64_t r = threadIdx.x % WAVE; r < R; r += WAVE) trace += widen(matrix[r * R + r]);
    trace = wave_sum(trace);
    polynomial_of(polynomial + blockIdx.z * R * R, matrix, R, 1.0f / (sqrtf(trace) + NEWTON_SCHULZ_EPSILON));
}

GEMM_KERNEL newton_schulz_step(act* y, const act* polynomial, const act* x, int64_t M, int64_t R, int64_t L) {
    multiply<false>(y + blockIdx.z * R * L, {polynomial + blockIdx.z * R * R, R}, {x + blockIdx.z * R * L, L}, R, L, R);
}

// The GEMMs of Muon's Newton-Schulz steps in bf16 on Hopper, for large matrices: formulas and shapes as in muon.hip.
//
// All matrices of a call are one tall GEMM of persistent blocks, see gemm/mainloop_tma.h. R and L are multiples of the
// tile of a cluster, so that no tile has rows of two matrices.
// newton_schulz_first_polynomial, which needs the trace of each matrix, stays in muon_mma.hip.
// Grid: TMA_CLUSTERS clusters of two blocks, or as many as there are tiles for them.
#include "gpu/gemm/mainloop_tma.h"
#include "gpu/gemm/linear_layer.h"
#include "gpu/gemm/polynomial.h"

constexpr SplitK NOT_CUT = {nullptr, WHOLE_K, 1};

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
newton_schulz_gram(act* gram, const act* x, int64_t M, int64_t R, int64_t L, TENSOR_MAP x_map, TENSOR_MAP gram_map) {
    Gemm<true, true, true>::run(x_map, x_map, M * R, R, L, store_operation(gram, R), NoRowSums{}, NOT_CUT, gram_map);
}

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
newton_schulz_polynomial(act* polynomial, const act* gram, int64_t M, int64_t R, TENSOR_MAP gram_map,
                         TENSOR_MAP polynomial_map) {
    const PolynomialOperation operation = polynomial_operation(polynomial, gram, R, 1.0f);
    Gemm<true, true, true>::run(gram_map, gram_map, M * R, R, R, operation, NoRowSums{}, NOT_CUT, polynomial_map);
}

PERSISTENT_KERNEL(TMA_THREADS, TMA_CLUSTER)
newton_schulz_step(act* y, const act* polynomial, const act* x, int64_t M, int64_t R, int64_t L,
                   TENSOR_MAP polynomial_map, TENSOR_MAP x_map, TENSOR_MAP y_map) {
    Gemm<true, false, true>::run(polynomial_map, x_map, M * R, L, R, store_operation(y, L), NoRowSums{}, NOT_CUT,
                                 y_map);
}

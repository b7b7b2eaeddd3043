// decode_blocks: one new token for each of N sequences through all blocks of a GPT-2 and its last norm, in one launch:
//   x = x + projection(attention(qkv(attention_norm(x))));  x = x + mlp_out(activation(mlp_in(mlp_norm(x))))
// for each of L blocks, then y = final norm of x with gamma and beta. Formulas as in layernorm.hip, matmul.hip and
// attention.hip (attention_decode); activation: 0 GELU, 1 ReLU, 2 ReLU^2. y, x (N, C) row-major, bf16; sums in f32.
// matrices[l]: weights (out, in) of qkv, projection, mlp_in, mlp_out. vectors[l]: gamma, beta of attention_norm; bias of
// qkv, of projection; gamma, beta of mlp_norm; bias of mlp_in, of mlp_out. cache[l]: keys and values (N, H, T, D).
// positions[n] is below T. The MLP has F = (M - 4 C^2) / (2 C) channels. exchange (K, 2): slots of decode/exchange.h, the last
// one the number of earlier launches.
//
// With one launch for each op, the latency of launches bounds the time for few sequences. So all thread blocks stay
// resident and exchange the outputs of each layer. Each computes the same number of outputs of a layer. Weights do not
// depend on the inputs: they are loaded into registers one layer ahead. A wave has a range of K, and multiplies eight
// outputs by up to eight sequences. Grid C / 8, all resident. Macros: SEQUENCES, CHANNELS, HIDDEN and HEAD_CHANNELS are N,
// C, F and D, so that every loop has a known length and weights stay in registers; SHARED_BYTES: dynamic shared memory.
// Minimum traffic: (L*M + 2*L*C*sum(positions))*sizeof(act) bytes.
#include "gpu/decode/activated.h"
#include "gpu/decode/heads.h"
#include "gpu/decode/linear.h"
#include "gpu/decode/norm.h"

KERNEL(DECODE_BLOCKS_THREADS)
decode_blocks(act* y, act* cache, int32_t* exchange, const act* x, const act* matrices, const act* vectors,
              const act* gamma, const act* beta, const int32_t* positions, int64_t /*N*/, int64_t /*C*/, int64_t L,
              int64_t /*H*/, int64_t T, int64_t /*D*/, int64_t K, int64_t M, int64_t W, float epsilon,
              int32_t activation) {
    constexpr int N = SEQUENCES, C = CHANNELS, F = HIDDEN;
    extern __shared__ int4 memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    Slot* const slots = reinterpret_cast<Slot*>(exchange);
    Slot *const of_qkv = slots, *const of_heads = of_qkv + N * 3 * C / 2, *const of_middle = of_heads + N * C / 2,
                *const of_hidden = of_middle + N * C / 2, *const of_x = of_hidden + N * F / 2;
    const uint32_t launches = *reinterpret_cast<volatile uint32_t*>(slots + K - 1);
    const auto copy_vectors = [&](int64_t l, int64_t from) {
        for (int at = threadIdx.x * WIDTH; at < 9 * C + F; at += DECODE_BLOCKS_THREADS * WIDTH)
            copy_chunk(shared.parameters[l % 2] + at, vectors + from * W + at, true);
        copies_commit();
    };
    const auto residual_sum = [&](int which, const act* bias) {
        return [&, which, bias](int n, int output, float sum) {
            return widen(shared.residual[which][n][output]) + sum + widen(bias[output]);
        };
    };
    const auto of_norm = [&](int which, const act* norm) {
        return [&, which, norm](int n, int column) { return normalized(shared, which, norm, norm + C, n, column); };
    };
    const auto of_inputs = [&](int n, int column) {
        return *reinterpret_cast<const Vector*>(shared.inputs[n] + column);
    };
    const auto heads_of = [&](int64_t l) {
        const int64_t each = Heads::ALL * T * HEAD_CHANNELS;
        return Heads{T, cache + 2 * l * each, cache + (2 * l + 1) * each};
    };
    Part<3 * C, C> qkv;
    qkv.fetch(matrices);
    if (threadIdx.x < N) shared.positions[threadIdx.x] = min(positions[threadIdx.x], static_cast<int32_t>(T) - 1);
    copy_vectors(0, 0);
    for (int at = threadIdx.x * WIDTH; at < N * C; at += DECODE_BLOCKS_THREADS * WIDTH)
        *reinterpret_cast<Vector*>(shared.residual[0][at / C] + at % C) = *reinterpret_cast<const Vector*>(x + at);

#pragma unroll 1
    for (int64_t l = 0; l < L; ++l) {
        const int64_t next = l + 1 < L ? l + 1 : l;  // whose first weights, vectors and cache are fetched; no branch
        const act *weights = matrices + l * M, *attention_norm = shared.parameters[l % 2];
        const act *qkv_bias = attention_norm + 2 * C, *projection_bias = qkv_bias + 3 * C;
        const act *mlp_norm = projection_bias + C, *mlp_in_bias = mlp_norm + 2 * C, *mlp_out_bias = mlp_in_bias + F;
        const Heads heads = heads_of(l);
        const uint32_t tag = launches * static_cast<uint32_t>(L) + static_cast<uint32_t>(l) + 1;
        Part<C, C> projection;
        Part<F, C> mlp_in;
        Part<C, F> mlp_out;

        projection.fetch(weights + 3 * C * C);
        if (l > 0) receive_rows<C>(shared.residual[0], of_x, tag - 1);
        copies_wait<0>();
        __syncthreads();
        summarize(shared, 0, epsilon);
        qkv.multiply(shared, of_norm(0, attention_norm));
        qkv.hand_out_sums(of_qkv, tag, shared,
                          [&](int, int output, float sum) { return sum + widen(qkv_bias[output]); });
        copy_vectors(l + 1, next);
        heads.attend(shared, of_heads, of_qkv, tag);
        heads_of(next).prefetch(shared);
        mlp_in.fetch(weights + 4 * C * C);

        receive_rows<C>(shared.inputs, of_heads, tag);
        projection.multiply(shared, of_inputs);
        projection.hand_out_sums(of_middle, tag, shared, residual_sum(0, projection_bias));
        mlp_out.fetch(weights + (4 * C + F) * C);

        receive_rows<C>(shared.residual[1], of_middle, tag);
        summarize(shared, 1, epsilon);
        mlp_in.multiply(shared, of_norm(1, mlp_norm));
        mlp_in.hand_out_sums(of_hidden, tag, shared, [&](int, int output, float sum) {
            return activated(sum + widen(mlp_in_bias[output]), activation);
        });
        qkv.fetch(matrices + next * M);

        receive_rows<F>(shared.inputs, of_hidden, tag);
        mlp_out.multiply(shared, of_inputs);
        mlp_out.hand_out_sums(of_x, tag, shared, residual_sum(1, mlp_out_bias));
    }
    if (blockIdx.x > 0) return;
    receive_rows<C>(shared.residual[0], of_x, (launches + 1) * static_cast<uint32_t>(L));
    summarize(shared, 0, epsilon);
    for (int at = threadIdx.x * WIDTH; at < N * C; at += DECODE_BLOCKS_THREADS * WIDTH)
        *reinterpret_cast<Vector*>(y + at) = normalized(shared, 0, gamma, beta, at / C, at % C);
    if (threadIdx.x == 0) *reinterpret_cast<volatile uint32_t*>(slots + K - 1) = launches + 1;
}

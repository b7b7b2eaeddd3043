// token_layers_forward, token_layers_backward: the layers of a GPT-2 from one attention to the next, which compute each
// token by itself. With `attention` (N, C), the output of a block's attention, and x, its residual stream:
//   middle = x + projection(attention);  y = middle + mlp_out(activation(mlp_in(mlp_norm(middle))))
//   qkv of the next block = qkv(norm(y)); without qkv, norm is the model's last norm.
// activation: 0 GELU, 1 ReLU, 2 ReLU^2; `active` and `slope` (N, F) are its values and derivatives. Weights (out, in),
// qkv's (3, C, C). All bf16 but the statistics of the norms; sums in f32. Formulas as in layernorm.hip and matmul.hip.
//
// backward: from dqkv and dy_after, the gradient of y by the layers after it, or without qkv from dnorm, to dy, dhidden
// (N, F), the gradient of mlp_in's output, dmiddle and dattention. partials (K, 2, C): a block's sums for gamma and beta
// of norm; mlp_partials: of mlp_norm. The gradients of the weights are products of what these kernels store.
//
// In a narrow model each of these layers takes some microseconds, of which launch and latency are most. A block keeps
// 64 tokens in shared memory and takes them through all layers, while weights stream past from L2: they are read once
// for two blocks. Macros: CHANNELS and HIDDEN are C and F, so that all loops have known lengths. Grid N / 64; N is a
// multiple of 128, F of C. Minimum traffic of each: ((6 + P)*C + 2*F)*N*2 + 16*N bytes and the weights, P parts of qkv.
#include "gpu/token_layers/rows.h"
#include "formulas.h"

// Tiles: the rows that are multiplied, a chunk of the hidden layer, and what comes from or goes to global memory.
constexpr int INPUT = 0, CHUNK = 1, OTHER = 2;

PERSISTENT_KERNEL(TOKEN_LAYERS_THREADS, TOKEN_LAYERS_CLUSTER)
token_layers_forward(act* middle, act* mlp_norm, float* mlp_mean, float* mlp_rstd, act* active, act* slope, act* y,
                     act* norm, float* mean, float* rstd, act* qkv, const act* attention, const act* x,
                     const act* projection, const act* projection_bias, const act* mlp_gamma, const act* mlp_beta,
                     const act* mlp_in, const act* mlp_in_bias, const act* mlp_out, const act* mlp_out_bias,
                     const act* gamma, const act* beta, const act* qkv_weight, const act* qkv_bias, int64_t /*N*/,
                     int64_t /*C*/, int64_t /*F*/, int64_t P, float epsilon, int32_t activation,
                     TENSOR_MAP attention_map, TENSOR_MAP x_map, TENSOR_MAP projection_map, TENSOR_MAP mlp_in_map,
                     TENSOR_MAP mlp_out_map, TENSOR_MAP qkv_weight_map, TENSOR_MAP middle_map, TENSOR_MAP mlp_norm_map,
                     TENSOR_MAP active_map, TENSOR_MAP slope_map, TENSOR_MAP y_map, TENSOR_MAP norm_map,
                     TENSOR_MAP qkv_map) {
    extern __shared__ __align__(1024) unsigned char bytes[];
    Memory& memory = *reinterpret_cast<Memory*>(bytes);
    init(memory);
    const int64_t first = int64_t{blockIdx.x} * ROWS;
    if (threadIdx.x >= MULTIPLIERS * WARPGROUP) {
        give_up_registers<40>();
        if (threadIdx.x % WARPGROUP == 0) {
            Loader loader = {memory, static_cast<int>(first)};
            loader.tile(INPUT, attention_map);
            loader.product<FORWARD>(projection_map, 0, 0);
            loader.tile(OTHER, x_map);
            loader.vectors({projection_bias, mlp_gamma, mlp_beta, mlp_in_bias, mlp_out_bias, gamma, beta, qkv_bias},
                           {2 * C, 2 * C, 2 * C, 2 * F, 2 * C, 2 * C, 2 * C, 6 * C});
            for (int chunk = 0; chunk < F; chunk += C) {
                loader.product<FORWARD>(mlp_in_map, 0, chunk);
                loader.product<FORWARD>(mlp_out_map, chunk, 0);
            }
            for (int part = 0; part < P; ++part) loader.product<FORWARD>(qkv_weight_map, 0, part * C);
        }
    } else {
        take_registers<232>();
        Multiplier multiplier = {memory};
        bf16 *const input = memory.tiles[INPUT], *const hidden = memory.tiles[CHUNK],
                    *const other = memory.tiles[OTHER];
        const act *const projection_biases = memory.vectors, *const mlp_norm_gamma = projection_biases + C,
                         *const mlp_norm_beta = mlp_norm_gamma + C, *const mlp_in_biases = mlp_norm_beta + C,
                         *const mlp_out_biases = mlp_in_biases + F, *const norm_gamma = mlp_out_biases + C,
                         *const norm_beta = norm_gamma + C, *const qkv_biases = norm_beta + C;
        float sums[SUMS], others[SUMS];

        multiplier.wait_for(INPUT);
        multiplier.product<FORWARD>(sums, INPUT);
        memory.vectors_full.wait(0);
        multiplier.wait_for(OTHER);
        for_pairs([&](int i, int row, int column) {
            const Pair bias(projection_biases + column), before(in_tile(other, row, column));
            for (int e = 0; e < 2; ++e) sums[i + e] += bias.value[e] + before.value[e];
        });
        round_into(other, sums);
        store_tile(middle_map, other, first);
        normalize(input, other, mlp_mean + first, mlp_rstd + first, mlp_norm_gamma, mlp_norm_beta, epsilon);
        store_tile(mlp_norm_map, input, first);

        for_pairs([&](int i, int, int column) {  // the products of mlp_out are added to middle
            const Pair bias(mlp_out_biases + column);
            for (int e = 0; e < 2; ++e) sums[i + e] += bias.value[e];
        });
#pragma unroll 1
        for (int chunk = 0; chunk < F; chunk += C) {
            multiplier.product<FORWARD>(others, INPUT);
            meet_to_write();
            const auto activate = [&](const auto& activation_of) {
                for_pairs([&](int i, int row, int column) {
                    const Pair bias(mlp_in_biases + chunk + column);
                    float values[2], slopes_of[2];
                    for (int e = 0; e < 2; ++e) {
                        const Activated of = activation_of(others[i + e] + bias.value[e]);
                        values[e] = of.value;
                        slopes_of[e] = of.slope;
                    }
                    store(in_tile(hidden, row, column), values);
                    store(in_tile(other, row, column), slopes_of);
                });
            };
            if (activation == 0)  // outside the loops over pairs, where it would be a branch for each number
                activate([](float x) { return gelu(x); });
            else if (activation == 1)
                activate([](float x) { return relu(x); });
            else
                activate([](float x) { return relu2(x); });
            meet();
            store_tile(active_map, hidden, first, chunk);
            store_tile(slope_map, other, first, chunk);
            multiplier.product<FORWARD>(sums, CHUNK, true);
        }
        meet_to_write();
        round_into(other, sums);
        store_tile(y_map, other, first);
        normalize(input, other, mean + first, rstd + first, norm_gamma, norm_beta, epsilon);
        store_tile(norm_map, input, first);

#pragma unroll 1
        for (int part = 0; part < P; ++part) {
            bf16* const tile = memory.tiles[part % 2 ? OTHER : CHUNK];
            multiplier.product<FORWARD>(sums, INPUT);
            meet_to_write();
            for_pairs([&](int i, int row, int column) {
                const Pair bias(qkv_biases + part * C + column);
                const float values[2] = {sums[i] + bias.value[0], sums[i + 1] + bias.value[1]};
                store(in_tile(tile, row, column), values);
            });
            meet();
            store_tile(qkv_map, tile, first, part * C);
        }
        stores_wait<0>();
    }
    cluster_barrier();  // a block must not end while the other still arrives at its barriers
}

PERSISTENT_KERNEL(TOKEN_LAYERS_THREADS, TOKEN_LAYERS_CLUSTER)
token_layers_backward(act* dy, act* dhidden, act* dmiddle, act* dattention, float* partials, float* mlp_partials,
                      const act* dqkv, const act* dnorm, const act* dy_after, const act* y, const float* mean,
                      const float* rstd, const act* gamma, const act* slope, const act* middle, const float* mlp_mean,
                      const float* mlp_rstd, const act* mlp_gamma, const act* qkv_weight, const act* mlp_out,
                      const act* mlp_in, const act* projection, int64_t /*N*/, int64_t /*C*/, int64_t /*F*/,
                      int64_t /*K*/, int64_t P, TENSOR_MAP dqkv_map, TENSOR_MAP dnorm_map, TENSOR_MAP dy_after_map,
                      TENSOR_MAP y_map, TENSOR_MAP slope_map, TENSOR_MAP middle_map, TENSOR_MAP qkv_weight_map,
                      TENSOR_MAP mlp_out_map, TENSOR_MAP mlp_in_map, TENSOR_MAP projection_map, TENSOR_MAP dy_map,
                      TENSOR_MAP dhidden_map, TENSOR_MAP dmiddle_map, TENSOR_MAP dattention_map) {
    extern __shared__ __align__(1024) unsigned char bytes[];
    Memory& memory = *reinterpret_cast<Memory*>(bytes);
    init(memory);
    const int64_t first = int64_t{blockIdx.x} * ROWS;
    if (threadIdx.x >= MULTIPLIERS * WARPGROUP) {
        give_up_registers<40>();
        if (threadIdx.x % WARPGROUP == 0) {
            Loader loader = {memory, static_cast<int>(first)};
            loader.vectors({gamma, mlp_gamma, mean + first, rstd + first, mlp_mean + first, mlp_rstd + first},
                           {2 * C, 2 * C, 4 * ROWS, 4 * ROWS, 4 * ROWS, 4 * ROWS});
            for (int part = 0; part < P; ++part) loader.tile(part, dqkv_map, part * C);
            for (int part = 0; part < P; ++part) loader.product<BACKWARD>(qkv_weight_map, part * C, 0);
            loader.tile(INPUT, y_map);
            loader.tile(CHUNK, P ? dy_after_map : dnorm_map);
            for (int chunk = 0; chunk < F; chunk += C) {
                loader.product<BACKWARD>(mlp_out_map, 0, chunk);
                loader.tile(OTHER, slope_map, chunk);
                loader.product<BACKWARD>(mlp_in_map, chunk, 0);
            }
            loader.tile(OTHER, middle_map);
            loader.product<BACKWARD>(projection_map, 0, 0);
        }
    } else {
        take_registers<232>();
        Multiplier multiplier = {memory};
        bf16 *const input = memory.tiles[INPUT], *const hidden = memory.tiles[CHUNK],
                    *const other = memory.tiles[OTHER];
        const act *const norm_gamma = memory.vectors, *const mlp_norm_gamma = norm_gamma + C;
        const float* const statistics = reinterpret_cast<const float*>(mlp_norm_gamma + C);
        float sums[SUMS], others[SUMS];
        memory.vectors_full.wait(0);
        if (P) {
#pragma unroll 1
            for (int part = 0; part < P; ++part) {
                multiplier.wait_for(part);
                multiplier.product<BACKWARD>(sums, part, part > 0);
                if (part != OTHER) multiplier.release_tile(part);
            }
            meet_to_write();
            round_into(other, sums);
        }
        multiplier.wait_for(CHUNK);
        multiplier.wait_for(INPUT);
        normalize_backward(memory, input, P ? hidden : nullptr, P ? other : hidden, input, statistics, norm_gamma,
                           partials + blockIdx.x * 2 * C);
        if (P) multiplier.release_tile(OTHER);
        store_tile(dy_map, input, first);
#pragma unroll 1
        for (int chunk = 0; chunk < F; chunk += C) {
            multiplier.product<BACKWARD>(others, INPUT);
            meet_to_write();
            multiplier.wait_for(OTHER);
            for_pairs([&](int i, int row, int column) {
                const Pair factor(in_tile(other, row, column));
                const float gradient[2] = {others[i] * factor.value[0], others[i + 1] * factor.value[1]};
                store(in_tile(hidden, row, column), gradient);
            });
            meet();
            multiplier.release_tile(OTHER);
            store_tile(dhidden_map, hidden, first, chunk);
            multiplier.product<BACKWARD>(sums, CHUNK, chunk > 0);
        }
        meet_to_write();
        round_into(hidden, sums);
        multiplier.wait_for(OTHER);
        normalize_backward(memory, input, input, hidden, other, statistics + 2 * ROWS, mlp_norm_gamma,
                           mlp_partials + blockIdx.x * 2 * C);
        store_tile(dmiddle_map, input, first);
        multiplier.product<BACKWARD>(sums, INPUT);
        meet_to_write();
        round_into(hidden, sums);
        store_tile(dattention_map, hidden, first);
        stores_wait<0>();
    }
    cluster_barrier();  // a block must not end while the other still arrives at its barriers
}

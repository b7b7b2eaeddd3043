// decode_tokens: the next `steps` tokens of each of N sequences of a narrow GPT-2, in one launch. A step draws a token from
// the logits as draw_token does (sampling.hip), and computes those of the token after it:
//   x = token_embedding[token] + position_embedding[position], through all blocks and the last norm (decode_blocks.hip);
//   logits = output_weight y + output_bias.
// tokens, positions, drawn (N) and windows (N, T) i32; settings (N, 4) f32, keys (N, 4) i32: as in sampling.hip. logits
// (N, V), cache (L, 2, N, H, T, D), matrices (L, M), vectors (L, W), gamma, beta (C): as in decode_blocks.hip.
// token_embedding, output_weight (V, C), position_embedding (T, C), output_bias (V), which may be null. All bf16 but i32
// and f32; sums in f32. positions stay below T.
//
// A token of such a model needs so little arithmetic that launches and waits take nearly all of the time. So a cluster
// of blocks has a sequence and keeps all weights in its shared memory. Its blocks share the sums of a layer twice in each
// block of the model, and the logits once. Each draws the same token for itself.
// Macros: CHANNELS, HIDDEN, HEAD_CHANNELS, LAYERS and VOCABULARY are C, F, D, L and V, so that every loop has a known
// length; SHARED_BYTES: dynamic shared memory. Grid N clusters. Minimum traffic: the weights once, and per step
// 4*L*C*position + 8*C bytes for each sequence.
#include "gpu/decode/resident.h"

constexpr int DRAW_THREADS = BLOCK_THREADS;
#include "gpu/simt/next_token.h"

// activation: 0 GELU, 1 ReLU, 2 ReLU^2.
DEVICE float activated(float hidden, int32_t activation) {
    return activation == 0 ? gelu(hidden).value : activation == 1 ? relu(hidden).value : relu2(hidden).value;
}

struct alignas(16) Memory {
    Part parts[LAYERS];
    act output[OWN_TOKENS][C], output_bias[OWN_TOKENS], norm[2 * C];
    act logits[CLUSTER * OWN_TOKENS];
    float scores[CLUSTER * OWN_TOKENS];
    // what other blocks read: sums over this block's terms, logits of its tokens
    float of_projection[OWN_CHANNELS], of_mlp[C];
    act own_logits[OWN_TOKENS];
    act x[C], own[3][D], attended[D], hidden[OWN_HIDDEN];
    WaveSoftmaxes<BLOCK_THREADS> softmaxes;
};
static_assert(sizeof(Memory) <= SHARED_BYTES, "");

// x += bias + the sums of a layer over the terms of COUNT blocks; sum_in(channel, i) is the sum of the i-th one.
template <int COUNT, class SumIn>
DEVICE void add_to_stream(Memory& memory, const act* bias, const SumIn& sum_in) {
    if (threadIdx.x < C) {
        const int channel = threadIdx.x;
        float sums[COUNT], sum = 0.0f;
#pragma unroll
        for (int i = 0; i < COUNT; ++i) sums[i] = *sum_in(channel, i);
        for (float each : sums) sum += each;
        narrow(memory.x[channel], widen(memory.x[channel]) + sum + widen(bias[channel]));
    }
    __syncthreads();
}

PERSISTENT_KERNEL(DECODE_TOKENS_THREADS, DECODE_TOKENS_CLUSTER)
decode_tokens(int32_t* tokens, int32_t* positions, int32_t* windows, int32_t* drawn, act* logits, act* cache,
              const float* settings, const int32_t* keys, const act* token_embedding, const act* position_embedding,
              const act* matrices, const act* vectors, const act* gamma, const act* beta, const act* output_weight,
              const act* output_bias, int64_t N, int64_t T, int64_t /*V*/, int64_t /*L*/, int64_t /*H*/, int64_t /*D*/,
              int64_t /*C*/, int64_t M, int64_t W, float epsilon, int32_t activation, int32_t steps) {
    extern __shared__ int4 bytes[];
    Memory& memory = *reinterpret_cast<Memory*>(bytes);
    const int block = block_of_cluster(), n = blockIdx.x / CLUSTER, head = block / GROUP;
    const bool is_first = block == 0 && threadIdx.x == 0;
    const int first_token = block * OWN_TOKENS, own_tokens = max(0, min(OWN_TOKENS, V - first_token));
    for (int l = 0; l < LAYERS; ++l) memory.parts[l].copy(matrices + l * M, vectors + l * W);
    copy_rows<C>(memory.output[0], output_weight + int64_t{first_token} * C, own_tokens, C);
    copy_rows<C>(memory.norm, gamma, 1, 0);
    copy_rows<C>(memory.norm + C, beta, 1, 0);
    copies_commit();
    for (int v = threadIdx.x; v < own_tokens; v += BLOCK_THREADS)
        memory.output_bias[v] = output_bias ? output_bias[first_token + v] : act{};
    logits += int64_t{n} * V;
    for (int v = threadIdx.x; v < V; v += BLOCK_THREADS) memory.logits[v] = logits[v];
    int32_t position = positions[n];
    Draw draw = {sampling_of(settings + 4 * n), windows + n * T, 0, drawn[n]};
    for (int i = 0; i < 4; ++i) draw.key[i] = keys[4 * n + i];
    copies_wait<0>();
    cluster_barrier();  // and all blocks have read what the first one will change

#pragma unroll 1
    for (int step = 0; step < steps; ++step, ++draw.number) {
        ++position;
        float x[WIDTH], of_position[WIDTH];
        const int row = min(position, static_cast<int>(T) - 1);
        load_inputs<C>(of_position, position_embedding + row * C);
        draw.window_tokens = min(position, static_cast<int>(T));
        const int32_t token = next_token(memory.logits, memory.scores, V, draw);
        load_inputs<C>(x, token_embedding + int64_t{token} * C);
        for (int i = 0; i < WIDTH; ++i) x[i] += of_position[i];
        if (threadIdx.x < C / WIDTH) store(memory.x + threadIdx.x * WIDTH, x);
        __syncthreads();

#pragma unroll 1
        for (int l = 0; l < LAYERS; ++l) {
            const Part& part = memory.parts[l];
            const act *attention_norm = part.vectors, *qkv_bias = attention_norm + 2 * C + head * D;
            const act *projection_bias = attention_norm + 5 * C, *mlp_norm = projection_bias + C;
            const act *mlp_in_bias = mlp_norm + 2 * C, *mlp_out_bias = mlp_in_bias + F;
            const int64_t each = N * HEADS * T * D;
            act* const head_keys = cache + 2 * l * each + (n * HEADS + head) * T * D;
            const CachedHead<BLOCK_THREADS> cached = {head_keys, head_keys + each};
            CachedHead<BLOCK_THREADS>::Rows rows;
            cached.load_rows(rows, 0, row);

            load_normalized(x, memory.x, attention_norm, epsilon);
            multiply<C>(part.qkv[0][0], 3 * D, x, [&](int output, float sum) {
                narrow(memory.own[output / D][output % D], sum + widen(qkv_bias[output / D * C + output % D]));
            });
            __syncthreads();
            if (block % GROUP == 0 && threadIdx.x < 2 * D) {
                const int which = threadIdx.x / D, d = threadIdx.x % D;
                head_keys[which * each + row * D + d] = memory.own[1 + which][d];
            }
            cached.attend(memory.softmaxes, rows, memory.own, row);
            if (threadIdx.x < D) narrow(memory.attended[threadIdx.x], memory.softmaxes.channel(threadIdx.x));
            __syncthreads();
            load_inputs<D>(x, memory.attended);
            multiply<D>(part.projection[0], OWN_CHANNELS, x,
                        [&](int output, float sum) { memory.of_projection[output] = sum; });
            cluster_barrier();
            add_to_stream<HEADS>(memory, projection_bias, [&](int channel, int other) {
                return in_block(memory.of_projection + channel % OWN_CHANNELS, other * GROUP + channel / OWN_CHANNELS);
            });

            load_normalized(x, memory.x, mlp_norm, epsilon);
            multiply<C>(part.mlp_in[0], OWN_HIDDEN, x, [&](int output, float sum) {
                const float biased = sum + widen(mlp_in_bias[block * OWN_HIDDEN + output]);
                narrow(memory.hidden[output], activated(biased, activation));
            });
            __syncthreads();
            load_inputs<OWN_HIDDEN>(x, memory.hidden);
            multiply<OWN_HIDDEN>(part.mlp_out[0], C, x, [&](int output, float sum) { memory.of_mlp[output] = sum; });
            cluster_barrier();
            add_to_stream<CLUSTER>(memory, mlp_out_bias,
                                   [&](int channel, int other) { return in_block(memory.of_mlp + channel, other); });
        }

        if (is_first) {  // after the draw of all blocks, and before they wait for each other once more
            tokens[n] = token;
            windows[n * T + position % T] = token;
        }
        load_normalized(x, memory.x, memory.norm, epsilon);
        multiply<C>(memory.output[0], own_tokens, x,
                    [&](int v, float sum) { narrow(memory.own_logits[v], sum + widen(memory.output_bias[v])); });
        cluster_barrier();
        constexpr int VECTORS = OWN_TOKENS / WIDTH;
        for (int i = threadIdx.x; i < CLUSTER * VECTORS; i += BLOCK_THREADS)
            reinterpret_cast<Vector*>(memory.logits)[i] =
                *in_block(reinterpret_cast<const Vector*>(memory.own_logits) + i % VECTORS, i / VECTORS);
        __syncthreads();
    }
    for (int v = threadIdx.x; v < own_tokens; v += BLOCK_THREADS) logits[first_token + v] = memory.own_logits[v];
    if (is_first) {
        positions[n] = position;
        drawn[n] = draw.number;
    }
    cluster_barrier();  // a block must not end while others still read its logits
}

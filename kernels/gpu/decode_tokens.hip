// decode_tokens: the next `steps` tokens of each of N sequences of a narrow GPT-2, in one launch. A step draws a token from
// the logits as draw_token does (sampling.hip), and computes those of the token after it:
//   x = token_embedding[token] + position_embedding[position], through all blocks and the last norm (decode_blocks.hip);
//   logits = output_weight y + output_bias.
// tokens, positions, drawn (N) and windows (N, T) i32; settings (N, 4) f32, keys (N, 4) i32: as in sampling.hip. logits
// (N, V), cache (L, 2, N, H, T, D), matrices (L, M), vectors (L, W), gamma, beta (C): as in decode_blocks.hip.
// token_embedding, output_weight (V, C), position_embedding (T, C), output_bias (V), which may be null. The tensors without
// a dtype here are bf16; sums in f32. positions stay below T; a larger one counts as T - 1, so that nothing outside of
// the cache is written.
//
// A token of such a model needs so little arithmetic that launches and waits take nearly all of the time. So a cluster of
// blocks has a sequence and keeps all weights in its shared memory. Its blocks send each other their sums, twice in each
// block of the model, and their logits. The rest is too little to divide: each block computes it for itself.
// Macros: CHANNELS, HIDDEN, HEAD_CHANNELS, LAYERS, VOCABULARY and CONTEXT are C, F, D, L, V and T, so that every loop
// has a known length; SHARED_BYTES: dynamic shared memory. Grid N clusters. Minimum traffic: the weights once, and for
// each sequence 4*V bytes, and 4*L*C*(position + 1) + 4*C bytes per step.
#include "gpu/decode/activated.h"
#include "gpu/decode/cached_head.h"
#include "gpu/decode/stream.h"

constexpr int DRAW_THREADS = BLOCK_THREADS;
#include "gpu/simt/next_token.h"

struct alignas(16) Memory {
    Part parts[LAYERS];
    Weights<OWN_TOKENS, C> output;
    act output_bias[OWN_TOKENS], last_norm[2 * C];
    // what the blocks send each other
    float of_projection[HEADS][C], of_mlp[CLUSTER][C];
    act logits[CLUSTER * OWN_TOKENS];
    float scores[CLUSTER * OWN_TOKENS];
    act normal[C], own[3][D], attended[D], hidden[OWN_HIDDEN];  // inputs of products
    WaveSoftmaxes<BLOCK_THREADS, D> softmaxes;
    int32_t window[CONTEXT];
    Barrier projection_full, mlp_full, logits_full;
};
static_assert(sizeof(Memory) <= SHARED_BYTES, "");

PERSISTENT_KERNEL(DECODE_TOKENS_THREADS, DECODE_TOKENS_CLUSTER)
decode_tokens(int32_t* tokens, int32_t* positions, int32_t* windows, int32_t* drawn, act* logits, act* cache,
              const float* settings, const int32_t* keys, const act* token_embedding, const act* position_embedding,
              const act* matrices, const act* vectors, const act* gamma, const act* beta, const act* output_weight,
              const act* output_bias, int64_t N, int64_t /*T*/, int64_t /*V*/, int64_t /*L*/, int64_t /*H*/,
              int64_t /*D*/, int64_t /*C*/, int64_t M, int64_t W, float epsilon, int32_t activation, int32_t steps) {
    constexpr int T = CONTEXT;
    extern __shared__ int4 bytes[];
    Memory& memory = *reinterpret_cast<Memory*>(bytes);
    const int block = block_of_cluster(), n = blockIdx.x / CLUSTER, head = block / GROUP;
    const int first_token = block * OWN_TOKENS, own_tokens = max(0, min(OWN_TOKENS, V - first_token));
    const bool is_first = block == 0 && threadIdx.x == 0, has_stream = threadIdx.x < WAVE;
    if (threadIdx.x == 0) {
        for (Barrier* full : {&memory.projection_full, &memory.mlp_full, &memory.logits_full}) full->init(1);
        fence_barrier_init();
    }
    for (int l = 0; l < LAYERS; ++l) memory.parts[l].copy(matrices + l * M, vectors + l * W);
    memory.output.copy(output_weight + int64_t{first_token} * C, C, 0, own_tokens);
    copy_elements(memory.last_norm, gamma, C);
    copy_elements(memory.last_norm + C, beta, C);
    copies_commit();
    for (int v = threadIdx.x; v < own_tokens; v += BLOCK_THREADS)
        memory.output_bias[v] = output_bias ? output_bias[first_token + v] : act{};
    logits += int64_t{n} * V;
    windows += n * T;
    for (int v = threadIdx.x; v < V; v += BLOCK_THREADS) memory.logits[v] = logits[v];
    for (int i = threadIdx.x; i < T; i += BLOCK_THREADS) memory.window[i] = windows[i];
    int32_t position = positions[n];
    Draw draw = {sampling_of(settings + 4 * n), memory.window, 0, drawn[n], {}};
    for (int i = 0; i < 4; ++i) draw.key[i] = keys[4 * n + i];
    copies_wait<0>();
    cluster_barrier();  // all blocks have their barriers, and have read what the first one will change
    Stream stream;

#pragma unroll 1
    for (int step = 0; step < steps; ++step, ++draw.number) {
        ++position;
        const int row = min(position, T - 1);
        float of_position[Stream::EACH];
        load(of_position, position_embedding + row * C + Stream::channel());
        draw.window_tokens = min(position, T);
        // the same in all blocks, because no result of a draw depends on the order of threads
        const int32_t token = next_token(memory.logits, memory.scores, V, draw);
        if (has_stream) {
            stream.begin(token_embedding + int64_t{token} * C, of_position);
            stream.normalize(memory.normal, memory.parts[0].vectors, epsilon);
        }
        if (threadIdx.x == 0) memory.window[position % T] = token;
        if (is_first) {
            tokens[n] = token;
            windows[position % T] = token;
        }
        __syncthreads();

#pragma unroll 1
        for (int l = 0; l < LAYERS; ++l) {
            const int round = step * LAYERS + l;
            const Part& part = memory.parts[l];
            const act *qkv_bias = part.vectors + 2 * C, *projection_bias = qkv_bias + 3 * C;
            const act *mlp_norm = projection_bias + C, *mlp_in_bias = mlp_norm + 2 * C, *mlp_out_bias = mlp_in_bias + F;
            const int64_t each = N * HEADS * T * D;
            act* const head_keys = cache + 2 * l * each + (n * HEADS + head) * T * D;
            const CachedHead<BLOCK_THREADS> cached = {head_keys, head_keys + each};
            CachedHead<BLOCK_THREADS>::Rows rows;
            cached.load_rows(rows, 0, row);

            part.qkv.multiply(memory.normal, [&](int output, const float(&sums)[2]) {
                if (!is_first_of_pair()) return;
                float pair[2];
                load(pair, qkv_bias + output / D * C + head * D + output % D);
                for (int e = 0; e < 2; ++e) pair[e] += sums[e];
                store(memory.own[output / D] + output % D, pair);
            });
            __syncthreads();
            // Every block of the head stores them, because a block is only sure to see its own stores.
            for (int i = threadIdx.x; i < 2 * D; i += BLOCK_THREADS)
                head_keys[i / D * each + row * D + i % D] = memory.own[1 + i / D][i % D];
            cached.attend(memory.softmaxes, rows, memory.own, row);
            if (threadIdx.x < D) narrow(memory.attended[threadIdx.x], memory.softmaxes.channel(threadIdx.x));
            __syncthreads();
            part.projection.multiply(memory.attended, [&](int output, const float(&sums)[2]) {
                send(memory.of_projection[head] + block % GROUP * OWN_CHANNELS + output, sums, memory.projection_full);
            });
            if (has_stream) {
                receive(memory.projection_full, sizeof(memory.of_projection), round);
                stream.add(memory.of_projection, projection_bias);
                stream.normalize(memory.normal, mlp_norm, epsilon);
            }
            __syncthreads();

            part.mlp_in.multiply(memory.normal, [&](int output, const float(&sums)[2]) {
                if (!is_first_of_pair()) return;
                float pair[2];
                load(pair, mlp_in_bias + block * OWN_HIDDEN + output);
                for (int e = 0; e < 2; ++e) pair[e] = activated(sums[e] + pair[e], activation);
                store(memory.hidden + output, pair);
            });
            __syncthreads();
            part.mlp_out.multiply(memory.hidden, [&](int output, const float(&sums)[2]) {
                send(memory.of_mlp[block] + output, sums, memory.mlp_full);
            });
            if (has_stream) {
                receive(memory.mlp_full, sizeof(memory.of_mlp), round);
                stream.add(memory.of_mlp, mlp_out_bias);
                const act* next = l + 1 < LAYERS ? memory.parts[l + 1].vectors : memory.last_norm;
                stream.normalize(memory.normal, next, epsilon);
            }
            __syncthreads();
        }

        memory.output.multiply(memory.normal, [&](int output, const float(&sums)[2]) {
            float pair[2];
            load(pair, memory.output_bias + output);
            for (int e = 0; e < 2; ++e) pair[e] += sums[e];
            send(memory.logits + first_token + output, pair, memory.logits_full);
        });
        receive(memory.logits_full, sizeof(memory.logits), step);
    }
    for (int v = threadIdx.x; v < own_tokens; v += BLOCK_THREADS)
        logits[first_token + v] = memory.logits[first_token + v];
    if (is_first) {
        positions[n] = position;
        drawn[n] = draw.number;
    }
}

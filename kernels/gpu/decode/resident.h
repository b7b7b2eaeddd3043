// The weights of a narrow model in the shared memory of a cluster's blocks, and products with them.
//
// A head has GROUP blocks. Each computes the head's query, key and value, and a part of the outputs of `projection` over
// the head's terms. Of the MLP a block has a part of the hidden channels, and all outputs over these terms.
#pragma once
#include "gpu/decode/cached_head.h"
#include "gpu/hopper/barrier.h"

constexpr int C = CHANNELS, F = HIDDEN, D = HEAD_CHANNELS, V = VOCABULARY;
constexpr int CLUSTER = DECODE_TOKENS_CLUSTER, BLOCK_THREADS = DECODE_TOKENS_THREADS;
constexpr int HEADS = C / D, GROUP = CLUSTER / HEADS;
constexpr int OWN_CHANNELS = C / GROUP, OWN_HIDDEN = F / CLUSTER;
constexpr int OWN_TOKENS = (V + CLUSTER * WIDTH - 1) / (CLUSTER * WIDTH) * WIDTH;  // of the vocabulary, whole vectors

// Starts to copy rows of COLUMNS elements that are `stride` apart.
template <int COLUMNS>
DEVICE void copy_rows(act* target, const act* source, int rows, int stride) {
    constexpr int CHUNKS = COLUMNS / WIDTH;
    for (int i = threadIdx.x; i < rows * CHUNKS; i += BLOCK_THREADS)
        copy_chunk(target + i * WIDTH, source + i / CHUNKS * stride + i % CHUNKS * WIDTH, true);
}

// A block's part of a block of the model. vectors: gamma, beta of attention_norm; bias of qkv, of projection; gamma,
// beta of mlp_norm; bias of mlp_in, of mlp_out.
struct Part {
    act qkv[3][D][C], projection[OWN_CHANNELS][D], mlp_in[OWN_HIDDEN][C], mlp_out[C][OWN_HIDDEN], vectors[9 * C + F];

    DEVICE_MEMBER void copy(const act* matrices, const act* all_vectors) {
        const int block = block_of_cluster(), head = block / GROUP, member = block % GROUP;
        for (int which = 0; which < 3; ++which)
            copy_rows<C>(qkv[which][0], matrices + (which * C + head * D) * C, D, C);
        matrices += 3 * C * C;
        copy_rows<D>(projection[0], matrices + member * OWN_CHANNELS * C + head * D, OWN_CHANNELS, C);
        matrices += C * C;
        copy_rows<C>(mlp_in[0], matrices + block * OWN_HIDDEN * C, OWN_HIDDEN, C);
        matrices += F * C;
        copy_rows<OWN_HIDDEN>(mlp_out[0], matrices + block * OWN_HIDDEN, C, F);
        copy_rows<9 * C + F>(vectors, all_vectors, 1, 0);
    }
};

// Calls finish(output, sum) by one lane for each of COUNT outputs: sum = a row of weights times the inputs. A team has
// WIDTH columns in each lane; inputs: those of this lane.
template <int COLUMNS, class Finish>
DEVICE void multiply(const act* weights, int count, const float (&inputs)[WIDTH], const Finish& finish) {
    constexpr int LANES = COLUMNS / WIDTH, TEAMS = BLOCK_THREADS / LANES;
    static_assert(LANES <= WAVE && WAVE % LANES == 0, "a team is within a wave");
    const int team = threadIdx.x / LANES, lane = threadIdx.x % LANES,
              first_of_wave = threadIdx.x / WAVE * (WAVE / LANES);
#pragma unroll 2
    for (int i = 0; first_of_wave + i < count; i += TEAMS) {  // all lanes of a wave, because they exchange sums
        const int output = team + i;
        float row[WIDTH] = {}, sum = 0.0f;
        if (output < count) load(row, weights + output * COLUMNS + lane * WIDTH);
        for (int k = 0; k < WIDTH; ++k) sum += row[k] * inputs[k];
        sum = sum_of_lanes<LANES>(sum);
        if (lane == 0 && output < count) finish(output, sum);
    }
}

// This lane's WIDTH columns of a row of COLUMNS that all teams multiply.
template <int COLUMNS>
DEVICE void load_inputs(float (&inputs)[WIDTH], const act* row) {
    load(inputs, row + threadIdx.x % (COLUMNS / WIDTH) * WIDTH);
}

// The same of the LayerNorm of x, rounded as the other kernels store it. norm: gamma, then beta.
DEVICE void load_normalized(float (&inputs)[WIDTH], const act* x, const act* norm, float epsilon) {
    constexpr int LANES = C / WIDTH;
    float total = 0.0f, squares = 0.0f, scales[WIDTH], shifts[WIDTH];
    load_inputs<C>(inputs, x);
    load_inputs<C>(scales, norm);
    load_inputs<C>(shifts, norm + C);
    for (float value : inputs) total += value;
    const float mean = sum_of_lanes<LANES>(total) / C;
    for (float value : inputs) squares += (value - mean) * (value - mean);
    const float rstd = rsqrtf(sum_of_lanes<LANES>(squares) / C + epsilon);
    for (int i = 0; i < WIDTH; ++i) inputs[i] = (inputs[i] - mean) * rstd * scales[i] + shifts[i];
    widen(inputs, rounded(inputs));
}

// The weights of a narrow model in the shared memory of a cluster's blocks, and products with them.
//
// A head has GROUP blocks. Each computes the head's query, key and value, and a part of the outputs of `projection` over
// the head's terms. Of the MLP a block has a part of the hidden channels, and all outputs over these terms.
#pragma once
#include "gpu/decode/multiply_add.h"
#include "gpu/hopper/barrier.h"
#include "gpu/simt/vector_io.h"

constexpr int C = CHANNELS, F = HIDDEN, D = HEAD_CHANNELS, V = VOCABULARY;
constexpr int CLUSTER = DECODE_TOKENS_CLUSTER, BLOCK_THREADS = DECODE_TOKENS_THREADS, WAVES = BLOCK_THREADS / WAVE;
constexpr int HEADS = C / D, GROUP = CLUSTER / HEADS;
constexpr int OWN_CHANNELS = C / GROUP, OWN_HIDDEN = F / CLUSTER;
constexpr int OWN_TOKENS = (V + CLUSTER * OUTPUTS - 1) / (CLUSTER * OUTPUTS) * OUTPUTS;  // of the vocabulary

// Starts to copy `count` elements, a multiple of WIDTH.
DEVICE void copy_elements(act* target, const act* source, int count) {
    for (int i = threadIdx.x * WIDTH; i < count; i += BLOCK_THREADS * WIDTH) copy_chunk(target + i, source + i, true);
}

// ROWS outputs of COLUMNS weights each. The lanes of an mma read 64 bytes of each of eight rows. In long rows, odd rows have
// the halves of each 128 bytes exchanged, so that these lanes use all banks.
template <int ROWS, int COLUMNS>
struct Weights {
    static constexpr int EACH = COLUMNS < 4 * WIDTH ? COLUMNS / 4 : WIDTH;  // neighbours that a lane reads at once
    static_assert(ROWS % OUTPUTS == 0 && EACH % 4 == 0 && COLUMNS % (4 * EACH) == 0, "");
    act elements[ROWS][COLUMNS];

    static DEVICE_MEMBER int place(int row, int column) {
        return COLUMNS % 64 == 0 ? column ^ (row & 1) * (4 * WIDTH) : column;
    }

    // Starts to copy `count` rows, from row `first` on, that are `stride` elements apart.
    DEVICE_MEMBER void copy(const act* source, int stride, int first = 0, int count = ROWS) {
        constexpr int CHUNKS = COLUMNS / WIDTH;
        for (int i = threadIdx.x; i < count * CHUNKS; i += BLOCK_THREADS) {
            const int row = i / CHUNKS, column = i % CHUNKS * WIDTH;
            copy_chunk(elements[first + row] + place(first + row, column), source + row * stride + column, true);
        }
    }

    // Calls finish(output, two sums) for each pair of neighbouring outputs of x. Eight lanes have a pair: those whose
    // numbers are equal modulo 4. A wave computes its groups of outputs together, because each mma takes long.
    template <class Finish>
    DEVICE_MEMBER void multiply(const act* x, const Finish& finish) const {
        constexpr int GROUPS = (ROWS + WAVES * OUTPUTS - 1) / (WAVES * OUTPUTS);
        const int lane = threadIdx.x % WAVE, first = threadIdx.x / WAVE * OUTPUTS;
        float sums[GROUPS][2][4] = {};  // two for a group, because each mma waits for the one before it
#pragma unroll
        for (int begin = 0; begin < COLUMNS; begin += 4 * EACH) {
            const int column = begin + lane % 4 * EACH;
            uint32_t inputs[EACH / 2], weights[EACH / 2];
            load_words(inputs, x + column);
#pragma unroll
            for (int group = 0; group < GROUPS; ++group) {
                const int row = min(first + group * WAVES * OUTPUTS, ROWS - OUTPUTS) + lane / 4;
                load_words(weights, elements[row] + place(row, column));
#pragma unroll
                for (int i = 0; i < EACH / 2; i += 2)
                    multiply_add(sums[group][i / 2], inputs[i], inputs[i + 1], weights[i], weights[i + 1]);
            }
        }
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            const int output = first + group * WAVES * OUTPUTS;
            if (ROWS % (WAVES * OUTPUTS) > 0 && output >= ROWS) continue;
            const float pair[2] = {sums[group][0][0] + sums[group][1][0], sums[group][0][1] + sums[group][1][1]};
            finish(output + lane % 4 * 2, pair);
        }
    }

   private:
    static DEVICE_MEMBER void load_words(uint32_t (&words)[4], const act* source) {
        const Vector vector = *reinterpret_cast<const Vector*>(source);
        for (int i = 0; i < 4; ++i) words[i] = vector.word[i];
    }
    static DEVICE_MEMBER void load_words(uint32_t (&words)[2], const act* source) {
        const HalfVector vector = *reinterpret_cast<const HalfVector*>(source);
        for (int i = 0; i < 2; ++i) words[i] = vector.word[i];
    }
};

// One of the eight lanes that have a pair.
DEVICE bool is_first_of_pair() { return threadIdx.x % WAVE < 4; }

// A block's part of a block of the model. vectors: gamma, beta of attention_norm; bias of qkv, of projection; gamma,
// beta of mlp_norm; bias of mlp_in, of mlp_out.
struct Part {
    Weights<3 * D, C> qkv;
    Weights<OWN_CHANNELS, D> projection;
    Weights<OWN_HIDDEN, C> mlp_in;
    Weights<C, OWN_HIDDEN> mlp_out;
    act vectors[9 * C + F];

    DEVICE_MEMBER void copy(const act* matrices, const act* all_vectors) {
        const int block = block_of_cluster(), head = block / GROUP, member = block % GROUP;
        for (int which = 0; which < 3; ++which) qkv.copy(matrices + (which * C + head * D) * C, C, which * D, D);
        matrices += 3 * C * C;
        projection.copy(matrices + member * OWN_CHANNELS * C + head * D, C);
        matrices += C * C;
        mlp_in.copy(matrices + block * OWN_HIDDEN * C, C);
        matrices += F * C;
        mlp_out.copy(matrices + block * OWN_HIDDEN, F);
        copy_elements(vectors, all_vectors, 9 * C + F);
    }
};

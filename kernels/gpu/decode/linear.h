// A block's part of a linear layer for few rows, by tensor cores, with weights that it loaded before.
#pragma once
#include "gpu/decode/shared.h"

// This block's part of a linear layer with ALL outputs: the same number of outputs as every block, from `first` on.
// A thread holds the weights of its wave's columns.
template <int ALL, int COLUMNS>
struct Part {
    static constexpr int OWN = ALL / BLOCKS, UNITS = (COLUMNS + WAVES * UNIT - 1) / (WAVES * UNIT);
    Vector weights[OWN / OUTPUTS][UNITS];

    static DEVICE_MEMBER int first() { return blockIdx.x * OWN; }
    static DEVICE_MEMBER int column(int unit) {
        return (threadIdx.x / WAVE * UNITS + unit) * UNIT + threadIdx.x % 4 * WIDTH;
    }
    static DEVICE_MEMBER bool has(int unit) { return COLUMNS % (WAVES * UNIT * UNITS) == 0 || column(unit) < COLUMNS; }

    // Starts the loads. They are in this place, because a volatile load does not move to where its value is used.
    DEVICE_MEMBER void fetch(const act* weight) {
        const act* own = weight + (first() + threadIdx.x % WAVE / 4) * COLUMNS + column(0);
#pragma unroll
        for (int group = 0; group < OWN / OUTPUTS; ++group)
#pragma unroll
            for (int unit = 0; unit < UNITS; ++unit) {
                weights[group][unit] = {};  // so that no earlier block's weights stay in registers
                uint32_t* word = weights[group][unit].word;
                if (has(unit))
                    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                                 : "l"(own + group * OUTPUTS * COLUMNS + unit * UNIT));
            }
    }

    // partials[wave][n][output] = this wave's part of the sums. input(n, column): WIDTH neighbours of an input.
    template <class Input>
    DEVICE_MEMBER void multiply(Shared& shared, const Input& input) const {
        const int n = threadIdx.x % WAVE / 4;
        float sums[OWN / OUTPUTS][4] = {};
#pragma unroll
        for (int unit = 0; unit < UNITS; ++unit) {
            if (!has(unit)) continue;
            const Vector x = n < SEQUENCES ? input(n, column(unit)) : Vector{};
#pragma unroll
            for (int group = 0; group < OWN / OUTPUTS; ++group) {
                const uint32_t* word = weights[group][unit].word;
                multiply_add(sums[group], x.word[0], x.word[1], word[0], word[1]);
                multiply_add(sums[group], x.word[2], x.word[3], word[2], word[3]);
            }
        }
        if (n < SEQUENCES)
#pragma unroll
            for (int group = 0; group < OWN / OUTPUTS; ++group)
                for (int e = 0; e < 2; ++e)
                    shared.partials[threadIdx.x / WAVE][n][group * OUTPUTS + threadIdx.x % 4 * 2 + e] = sums[group][e];
        __syncthreads();
    }

    // Hands out finish(n, output, sum) for this block's outputs of every sequence. slots: of (N, ALL).
    template <class Finish>
    static DEVICE_MEMBER void hand_out_sums(Slot* slots, uint32_t tag, const Shared& shared, const Finish& finish) {
        constexpr int PAIRS = OWN / 2;
        for (int i = threadIdx.x; i < SEQUENCES * PAIRS; i += DECODE_BLOCKS_THREADS) {
            const int n = i / PAIRS, output = i % PAIRS * 2;
            float sums[2] = {}, others[2];
#pragma unroll
            for (int wave = 0; wave < WAVES; ++wave) {
                load(others, shared.partials[wave][n] + output);
                for (int e = 0; e < 2; ++e) sums[e] += others[e];
            }
            for (int e = 0; e < 2; ++e) sums[e] = finish(n, first() + output + e, sums[e]);
            hand_out(slots + (n * ALL + first() + output) / 2, bf16_pair(sums[0], sums[1]), tag);
        }
    }
};

// The matrix unit of RDNA 3 and 3.5, waves of 32: "RDNA3 ISA", section 7.9. What a unit's header defines is in
// amd/unit.h. Both halves of a wave must hold the same operands. A lane holds rows lane / 16 + 0, 2, 4 ... 14 of a sum.
#pragma once
#include "gpu/platform/hip.h"

struct Unit {
    static constexpr int STEP_K = 16, HELD_K = 16, SIZE = 8;
    static constexpr bool MANY_REGISTERS = false;  // 256 per lane
    typedef short Operand __attribute__((vector_size(2 * HELD_K)));
    typedef float Sum __attribute__((vector_size(4 * SIZE)));

    static DEVICE_MEMBER unsigned first_k(unsigned) { return 0; }

    static DEVICE_MEMBER unsigned row_at(unsigned place) { return place / 16 * 16 + place % 2 * 8 + place / 2 % 8; }
    static constexpr int PLACE_STEP = 2;
    static DEVICE_MEMBER unsigned place_of(unsigned row) { return row / 16 * 16 + row % 8 * 2 + row / 8 % 2; }

    static constexpr unsigned permutation(int chunks) {
        return chunks == 2 ? 0x41100 : chunks == 4 ? 0x25120 : chunks == 8 ? 0x25421 : 0x04421;
    }

    // The operand whose k are a lane's segment of a sum, in pairs of bf16, and that of the lane in the wave's other half.
    // The LDS unit exchanges them, because it has more time to spare than the vector unit.
    static DEVICE_MEMBER Operand operand_of(const uint32_t (&pairs)[4]) {
        typedef uint32_t Words __attribute__((vector_size(32)));
        Words words;
        for (int i = 0; i < 4; ++i) {
            words[i] = of_first_half(pairs[i]);
            words[i + 4] = of_second_half(pairs[i]);
        }
        return __builtin_bit_cast(Operand, words);
    }

    static DEVICE_MEMBER void multiply(Sum& sum, const Operand& a, const Operand& b) {
        sum = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, sum);
        // keeps the instruction here: clang would move it to where the sum is used, after the wait for the next stage
        sum[0] = opaque(sum[0]);
    }
};

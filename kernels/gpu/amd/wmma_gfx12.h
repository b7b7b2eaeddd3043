// The matrix unit of RDNA 4, waves of 32: "RDNA4 ISA", section 7.12. What a unit's header defines is in amd/unit.h.
// A lane holds 8 neighbouring k of an operand and 8 neighbouring rows of a sum, both from lane / 16 * 8 on.
#pragma once
#include "gpu/platform/hip.h"

struct Unit {
    static constexpr int STEP_K = 16, HELD_K = 8, SIZE = 8;
    static constexpr bool MANY_REGISTERS = false;  // 256 per lane
    typedef short Operand __attribute__((vector_size(2 * HELD_K)));
    typedef float Sum __attribute__((vector_size(4 * SIZE)));

    static DEVICE_MEMBER unsigned first_k(unsigned lane) { return lane / 16 * HELD_K; }

    static DEVICE_MEMBER unsigned row_at(unsigned place) { return place; }
    static constexpr int PLACE_STEP = 1;
    static DEVICE_MEMBER unsigned place_of(unsigned row) { return row; }

    static constexpr unsigned permutation(int chunks) {
        return chunks == 2 ? 0x42100 : chunks == 4 ? 0x21610 : chunks == 8 ? 0x21421 : 0x00421;
    }

    // The operand whose k are a lane's segment of a sum, in pairs of bf16.
    static DEVICE_MEMBER Operand operand_of(const uint32_t (&pairs)[4]) {
        typedef uint32_t Words __attribute__((vector_size(16)));
        return __builtin_bit_cast(Operand, (Words{pairs[0], pairs[1], pairs[2], pairs[3]}));
    }

    static DEVICE_MEMBER void multiply(Sum& sum, const Operand& a, const Operand& b) {
        sum = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, sum);
        // keeps the instruction here: clang would move it to where the sum is used, after the wait for the next stage
        sum[0] = opaque(sum[0]);
    }
};

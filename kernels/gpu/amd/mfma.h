// The matrix unit of CDNA 2 and later, waves of 64. "AMD Instinct MI200 ISA", section 12.5, "AMD Instinct CDNA4 ISA",
// and AMD's matrix instruction calculator. What a unit's header defines is in amd/unit.h.
//
// v_mfma_f32_16x16x16_bf16: a lane holds 4 neighbouring k of an operand from lane / 16 * 4 on, and rows
// lane / 16 * 4 + 0 ... 3 of a sum. v_mfma_f32_16x16x32_bf16 of gfx950: 8 neighbouring k from lane / 16 * 8 on. A step
// of 32 k has the latter's layout; without it, two instructions take the first and the second half of each lane's k.
// That is another order of k than memory's, but the same one for both operands.
#pragma once
#include "gpu/platform/hip.h"

struct Unit {
    static constexpr int STEP_K = 32, HELD_K = 8, SIZE = 4;
    static constexpr bool MANY_REGISTERS = true;  // 512 per lane
    typedef short Operand __attribute__((vector_size(2 * HELD_K)));
    typedef float Sum __attribute__((vector_size(4 * SIZE)));

    static DEVICE_MEMBER unsigned first_k(unsigned lane) { return lane / 16 * HELD_K; }

    // Two sums in turn hold 4 of each 8 neighbours.
    static DEVICE_MEMBER unsigned row_at(unsigned place) {
        return place / 32 * 32 + place / 4 % 4 * 8 + place / 16 % 2 * 4 + place % 4;
    }
    static constexpr int PLACE_STEP = 1;
    static DEVICE_MEMBER unsigned place_of(unsigned row) {
        return row / 32 * 32 + row / 4 % 2 * 16 + row / 8 % 4 * 4 + row % 4;
    }

    static constexpr unsigned permutation(int chunks) {
        return chunks == 4 ? 0x43210 : chunks == 8 ? 0x43241 : 0x49241;
    }

    // The operand whose k are a lane's segment of a sum, in pairs of bf16.
    static DEVICE_MEMBER Operand operand_of(const uint32_t (&pairs)[4]) {
        typedef uint32_t Words __attribute__((vector_size(16)));
        return __builtin_bit_cast(Operand, (Words{pairs[0], pairs[1], pairs[2], pairs[3]}));
    }

    static DEVICE_MEMBER void multiply(Sum& sum, const Operand& a, const Operand& b) {
#ifdef __gfx950__
        typedef __bf16 Elements __attribute__((vector_size(2 * HELD_K)));
        sum = __builtin_amdgcn_mfma_f32_16x16x32_bf16(__builtin_bit_cast(Elements, a), __builtin_bit_cast(Elements, b),
                                                      sum, 0, 0, 0);
#else
        typedef short Half __attribute__((vector_size(HELD_K)));
        const Half a_first = {a[0], a[1], a[2], a[3]}, a_second = {a[4], a[5], a[6], a[7]};
        const Half b_first = {b[0], b[1], b[2], b[3]}, b_second = {b[4], b[5], b[6], b[7]};
        sum = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a_first, b_first, sum, 0, 0, 0);
        sum = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a_second, b_second, sum, 0, 0, 0);
#endif
    }
};

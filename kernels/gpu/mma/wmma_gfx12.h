// mma by AMD's WMMA of RDNA 4, waves of 32: each half of a wave holds half of K. "RDNA4 ISA", section 7.12.
#pragma once
#include "gpu/mma/amd_layout.h"

struct Wmma {
    static constexpr int OPERAND_K = 8, SIZE = 8;
    static constexpr bool MANY_REGISTERS = false;  // 256 per lane
    typedef short Operand __attribute__((vector_size(2 * OPERAND_K)));
    typedef float Values __attribute__((vector_size(4 * SIZE)));
    struct Sum {
        Values value;
    };
    static DEVICE_MEMBER unsigned first_k(unsigned lane) { return lane / 16 * 8; }
    static DEVICE_MEMBER unsigned row(unsigned index, unsigned lane) { return lane / 16 * 8 + index; }
    static DEVICE_MEMBER void multiply(const Operand& a, const Operand& b, Sum& sum) {
        sum.value = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(a, b, sum.value);
    }
};

using Mma = AmdMma<Wmma>;

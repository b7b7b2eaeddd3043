// mma by AMD's WMMA of RDNA 3, waves of 32: both halves of a wave hold the same operands. "RDNA3 ISA", section 7.9.
#pragma once
#include "gpu/mma/amd_layout.h"

struct Wmma {
    static constexpr int OPERAND_K = 16, SIZE = 8;
    static constexpr bool MANY_REGISTERS = false;  // 256 per lane
    typedef short Operand __attribute__((vector_size(2 * OPERAND_K)));
    typedef float Values __attribute__((vector_size(4 * SIZE)));
    struct Sum {
        Values value;
    };
    static DEVICE_MEMBER unsigned first_k(unsigned) { return 0; }
    static DEVICE_MEMBER unsigned row(unsigned index, unsigned lane) { return 2 * index + lane / 16; }
    static DEVICE_MEMBER void multiply(const Operand& a, const Operand& b, Sum& sum) {
        sum.value = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, sum.value);
    }
};

using Mma = AmdMma<Wmma>;

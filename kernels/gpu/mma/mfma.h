// mma by AMD's MFMA: CDNA 2 and later, waves of 64. "AMD Instinct MI200 ISA", section 12.5, and AMD's matrix
// instruction calculator for v_mfma_f32_16x16x16_bf16.
#pragma once
#include "gpu/mma/amd_layout.h"

struct Mfma {
    static constexpr int OPERAND_K = 4, SIZE = 4;
    static constexpr bool MANY_REGISTERS = true;  // 512 per lane
    typedef short Operand __attribute__((vector_size(2 * OPERAND_K)));
    typedef float Values __attribute__((vector_size(4 * SIZE)));
    struct Sum {
        Values value;
    };
    static DEVICE_MEMBER unsigned first_k(unsigned lane) { return lane / 16 * 4; }
    static DEVICE_MEMBER unsigned row(unsigned index, unsigned lane) { return lane / 16 * 4 + index; }
    static DEVICE_MEMBER void multiply(const Operand& a, const Operand& b, Sum& sum) {
        sum.value = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(a, b, sum.value, 0, 0, 0);
    }
};

using Mma = AmdMma<Mfma>;

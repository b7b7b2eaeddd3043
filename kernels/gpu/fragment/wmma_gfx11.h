// Fragments by AMD's WMMA as in RDNA 3, waves of 32: both halves of a wave hold the same operands. "RDNA3 ISA", section 7.9.
#pragma once
#include "columns.h"

struct Wmma {
    static constexpr int TERMS = 16, SIZE = 8;
    static constexpr bool ROOMY = false;  // 256 of them a lane
    typedef short Operand __attribute__((vector_size(2 * TERMS)));
    typedef float Values __attribute__((vector_size(4 * SIZE)));
    struct Sum {
        Values value;
    };
    static DEVICE_MEMBER int first_term(int) { return 0; }
    static DEVICE_MEMBER int row(int index, int lane) { return 2 * index + lane / 16; }
    static DEVICE_MEMBER void multiply(const Operand& a, const Operand& b, Sum& sum) {
        sum.value = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(a, b, sum.value);
    }
};

using Fragment = ColumnFragment<Wmma>;

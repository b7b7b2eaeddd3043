// The tensor cores' product of few rows by rows of a weight.
#pragma once
#include "gpu/select/platform.h"

// hipgpt/compute/backends/decode_blocks.py and decode_tokens.py read these.
constexpr int OUTPUTS = 8;  // rows of a weight
constexpr int TERMS = 16;

// sums (sequences x outputs) += x (sequences x 16) * weights (outputs x 16)^T. Lane l has four numbers of the sequence
// l / 4 and of the output l / 4, and the sums of sequence l / 4 and outputs l % 4 * 2 and one more. Which columns the
// numbers are from does not matter, as long as both operands have the same. PTX ISA, "mma.m16n8k16".
DEVICE void multiply_add(float (&sums)[4], uint32_t x0, uint32_t x1, uint32_t weights0, uint32_t weights1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(x0), "r"(0), "r"(x1), "r"(weights0), "r"(weights1));
}

// How much memory a DualOperand takes, the same for every instruction set. hipgpt/compute/backends/cpu.py reads it.
#pragma once

constexpr int OPERAND_BLOCK = 32;  // rows and columns are padded to multiples of it
constexpr int BF16_SPLITS = 3;     // bf16 numbers that AMX stores for an f32

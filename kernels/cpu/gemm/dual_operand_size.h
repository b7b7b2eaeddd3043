// How much memory a DualOperand takes, the same for every instruction set. hipgpt/compute/backends/cpu.py reads it.
#pragma once

constexpr int OPERAND_ROWS = 96;     // rows are padded to a multiple of it, and so of every MR
constexpr int OPERAND_COLUMNS = 32;  // columns likewise, and so of every NR
constexpr int BF16_SPLITS = 3;       // bf16 numbers that AMX stores for an f32

// Values that change from step to step. They are in the device's memory, so that a recorded plan reads those of its
// step. hipgpt/training/step_io.py writes these tables.
#pragma once
#ifndef HIPGPT_SCALAR  // a GPU build defines it, and has these types, before it includes this file
#include <cstdint>
#endif

// The op argument `counters` (4): which micro-batch of which step a plan is at, and the seed of dropout's masks.
struct StepState {
    uint32_t seed_low, seed_high, step, micro_step;
};

// A row of the op argument `schedule` (K, 3). The corrections are 1 / (1 - beta^step).
struct ScheduleRow {
    float learning_rate, first_moment_correction, second_moment_correction;
};

// A row of the op argument `history` (K, 2).
struct HistoryRow {
    float loss, gradient_norm;
};

// What changes from step to step, in the device's memory so that a recorded plan reads each step's own values.
// hipgpt/training/step_io.py writes these tables.
#pragma once

// The op argument `counters` (4): which micro-batch of which step a plan is at, and the seed of dropout's masks.
struct StepState {
    uint32_t seed_low, seed_high, step, micro_step;
};

// A row of the op argument `schedule` (K, 3).
struct ScheduleRow {
    float learning_rate, first_moment_correction, second_moment_correction;
};

// A row of the op argument `history` (K, 2).
struct HistoryRow {
    float loss, gradient_norm;
};

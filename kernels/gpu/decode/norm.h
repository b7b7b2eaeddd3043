// LayerNorm of the residual stream in shared memory.
#pragma once
#include "gpu/decode/shared.h"

// Mean and reciprocal standard deviation of each row of residual[which], a wave for a row.
DEVICE void summarize(Shared& shared, int which, float epsilon) {
    constexpr int EACH = (CHANNELS + WAVE * WIDTH - 1) / (WAVE * WIDTH);
    const int n = threadIdx.x / WAVE, lane = threadIdx.x % WAVE;
    if (n < SEQUENCES) {
        float total = 0.0f, squares = 0.0f, values[EACH][WIDTH];
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int c = (i * WAVE + lane) * WIDTH;
            if (c >= CHANNELS) continue;
            load(values[i], shared.residual[which][n] + c);
            for (float value : values[i]) total += value;
        }
        const float mean = wave_sum(total) / CHANNELS;
#pragma unroll
        for (int i = 0; i < EACH; ++i)
            if ((i * WAVE + lane) * WIDTH < CHANNELS)
                for (float value : values[i]) squares += (value - mean) * (value - mean);
        const float rstd = rsqrtf(wave_sum(squares) / CHANNELS + epsilon);
        if (lane == 0) shared.statistics[n] = {mean, rstd};
    }
    __syncthreads();
}

// WIDTH neighbours of its norm.
DEVICE Vector normalized(const Shared& shared, int which, const act* gamma, const act* beta, int n, int column) {
    const Statistics of = shared.statistics[n];
    float values[WIDTH], scales[WIDTH], shifts[WIDTH];
    load(values, shared.residual[which][n] + column);
    load(scales, gamma + column);
    load(shifts, beta + column);
    for (int i = 0; i < WIDTH; ++i) values[i] = (values[i] - of.mean) * of.rstd * scales[i] + shifts[i];
    return rounded(values);
}

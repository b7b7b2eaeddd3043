// Biases, activations and norms of a block's rows, between two products. A thread has sums of two rows, in pairs.
#pragma once
#include "gpu/simt/vector_io.h"
#include "gpu/token_layers/products.h"

// All threads that multiply meet. What they have stored in shared memory is then visible to wgmma and the copy engine.
DEVICE void meet() {
    fence_shared();
    barrier_of_threads(1, MULTIPLIERS * WARPGROUP);
}

// The same, and tiles may be written again: both warpgroups have multiplied them, and the copy engine has stored them.
DEVICE void meet_to_write() {
    if (threadIdx.x == 0) stores_wait<0>();
    barrier_of_threads(1, MULTIPLIERS * WARPGROUP);
}

// Has the copy engine store a tile in global memory, after `meet`.
DEVICE void store_tile(const TensorMap& target, const bf16* tile, int64_t row, int column = 0) {
    if (threadIdx.x > 0) return;
    for (int box = 0; box < BOXES; ++box) target.store(tile + box * BOX, static_cast<int>(row), column + box * SIDE);
    stores_commit();
}

// Calls visit(i, row of the block, column) for each pair (sums[i], sums[i + 1]).
template <class Visit>
DEVICE void for_pairs(const Visit& visit) {
    const int warpgroup = threadIdx.x / WARPGROUP, warp = threadIdx.x % WARPGROUP / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < SUMS; i += 2)
        visit(i, warp * 16 + lane / 4 + i / 2 % 2 * 8, warpgroup * OWN + i / 4 * 8 + lane % 4 * 2);
}

struct Pair {
    float value[2];
    DEVICE_MEMBER explicit Pair(const bf16* source) { load(value, source); }
};

// The address of a pair of a tile.
DEVICE bf16* in_tile(bf16* tile, int row, int column) {
    const int chunk = column % SIDE / WIDTH;
    return tile + column / SIDE * BOX + SharedTile<8>::offset(row, chunk) + column % WIDTH;
}

// A tile = sums. The sums are rounded too, because the backward pass will read them so.
DEVICE void round_into(bf16* tile, float (&sums)[SUMS]) {
    for_pairs([&](int i, int row, int column) {
        const uint32_t pair = bf16_pair(sums[i], sums[i + 1]);
        *reinterpret_cast<uint32_t*>(in_tile(tile, row, column)) = pair;
        sums[i] = bits_float(pair << 16);
        sums[i + 1] = bits_float(pair & 0xFFFF0000u);
    });
    meet();
}

// y = LayerNorm of x, both tiles; the statistics go to mean and rstd. Formulas as in layernorm.hip.
DEVICE void normalize(bf16* y, bf16* x, float* means, float* rstds, const act* gamma, const act* beta, float epsilon) {
    const int column = threadIdx.x % LANES * WIDTH;
    float scales[WIDTH], shifts[WIDTH];
    load(scales, gamma + column);
    load(shifts, beta + column);
#pragma unroll 2
    for (int row = threadIdx.x / LANES; row < ROWS; row += TEAMS) {
        float values[WIDTH], total = 0.0f, squares = 0.0f;
        load(values, in_tile(x, row, column));
        for (float value : values) total += value;
        const float mean = sum_of_lanes<LANES>(total) / C;
        for (float value : values) squares += (value - mean) * (value - mean);
        const float rstd = 1.0f / sqrtf(sum_of_lanes<LANES>(squares) / C + epsilon);
        for (int i = 0; i < WIDTH; ++i) values[i] = (values[i] - mean) * rstd * scales[i] + shifts[i];
        store(in_tile(y, row, column), values);
        if (column == 0) {
            means[row] = mean;
            rstds[row] = rstd;
        }
    }
    meet();
}

// dx = before + the gradient of the input x of a LayerNorm whose output has the gradient dy. All are tiles; dx may be
// one of the others, and before may be null for zeros. statistics: 64 means, then as many reciprocal standard
// deviations. partials (2, C): the block's sums for gamma and beta. Formulas as in layernorm.hip.
DEVICE void normalize_backward(Memory& memory, bf16* dx, bf16* before, bf16* dy, bf16* x, const float* statistics,
                               const act* gamma, float* partials) {
    const int column = threadIdx.x % LANES * WIDTH, team = threadIdx.x / LANES;
    float scales[WIDTH], of_gamma[WIDTH] = {}, of_beta[WIDTH] = {};
    load(scales, gamma + column);
#pragma unroll 2
    for (int row = team; row < ROWS; row += TEAMS) {
        float normal[WIDTH], gradients[WIDTH], sums[WIDTH] = {}, sum = 0.0f, product = 0.0f;
        const float mean = statistics[row], rstd = statistics[ROWS + row];
        load(normal, in_tile(x, row, column));
        load(gradients, in_tile(dy, row, column));
        if (before) load(sums, in_tile(before, row, column));
        for (int i = 0; i < WIDTH; ++i) {
            normal[i] = (normal[i] - mean) * rstd;
            of_gamma[i] += gradients[i] * normal[i];
            of_beta[i] += gradients[i];
            gradients[i] *= scales[i];
            sum += gradients[i];
            product += gradients[i] * normal[i];
        }
        sum = sum_of_lanes<LANES>(sum) / C;
        product = sum_of_lanes<LANES>(product) / C;
        for (int i = 0; i < WIDTH; ++i) sums[i] += rstd * (gradients[i] - sum - normal[i] * product);
        store(in_tile(dx, row, column), sums);
    }
    store(memory.of_columns[team][0] + column, of_gamma);
    store(memory.of_columns[team][1] + column, of_beta);
    meet();
    for (int at = threadIdx.x; at < 2 * C; at += MULTIPLIERS * WARPGROUP) {
        float sum = 0.0f;
        for (int other = 0; other < TEAMS; ++other) sum += memory.of_columns[other][at / C][at % C];
        partials[at] = sum;
    }
}

// What happens to a block's rows between two products. A thread has the sums of two rows, in pairs of columns.
#pragma once
#include "gpu/simt/vector_io.h"
#include "gpu/token_layers/products.h"

// All threads that multiply meet. What they have stored in shared memory is then visible to wgmma and to the copy engine.
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
    for (int box = 0; box < BOXES; ++box)
        target.store(tile + box * BOX, static_cast<int>(row), column + box * SIDE);
    stores_commit();
}

// Calls visit(i, h, row of the block, column) for each pair (sums[i], sums[i + 1]); h: 0 or 1, the first or second row.
template <class Visit>
DEVICE void for_pairs(const Visit& visit) {
    const int warpgroup = threadIdx.x / WARPGROUP, warp = threadIdx.x % WARPGROUP / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < SUMS; i += 2)
        visit(i, i / 2 % 2, warp * 16 + lane / 4 + i / 2 % 2 * 8, warpgroup * OWN + i / 4 * 8 + lane % 4 * 2);
}

struct Pair {
    float value[2];
    DEVICE_MEMBER explicit Pair(const bf16* source) { load(value, source); }
};

// Where a pair of a tile lies.
DEVICE bf16* in_tile(bf16* tile, int row, int column) {
    const int chunk = column % SIDE / WIDTH;
    return tile + column / SIDE * BOX + SharedTile<8>::offset(row, chunk) + column % WIDTH;
}

// A tile = sums, which become what bf16 has of them, because the backward pass will read that.
DEVICE void round_into(bf16* tile, float (&sums)[SUMS]) {
    for_pairs([&](int i, int, int row, int column) {
        const uint32_t pair = bf16_pair(sums[i], sums[i + 1]);
        *reinterpret_cast<uint32_t*>(in_tile(tile, row, column)) = pair;
        sums[i] = bits_float(pair << 16);
        sums[i + 1] = bits_float(pair & 0xFFFF0000u);
    });
    meet();
}

// Sums over whole rows: of two quantities for each of the thread's two rows. turn: alternates from call to call.
DEVICE void sum_rows(Memory& memory, int turn, float (&sums)[2][2]) {
    const int warpgroup = threadIdx.x / WARPGROUP, row = threadIdx.x % WARPGROUP / 32 * 16 + threadIdx.x % 32 / 4;
    for (auto& of_row : sums)
        for (float& sum : of_row) {
            sum += wave_exchange<1>(sum);
            sum += wave_exchange<2>(sum);
        }
    if (threadIdx.x % 4 == 0)
        for (int h = 0; h < 2; ++h)
            for (int q = 0; q < 2; ++q) memory.of_rows[turn][warpgroup][row + 8 * h][q] = sums[h][q];
    meet();
    for (int h = 0; h < 2; ++h)
        for (int q = 0; q < 2; ++q)
            sums[h][q] = memory.of_rows[turn][0][row + 8 * h][q] + memory.of_rows[turn][1][row + 8 * h][q];
}

// A tile = LayerNorm of the rows in sums; their statistics go to mean and rstd. Formulas as in layernorm.hip.
DEVICE void normalize(Memory& memory, const float (&sums)[SUMS], bf16* tile, float* means, float* rstds,
                      const act* gamma, const act* beta, float epsilon) {
    float totals[2][2] = {}, squares[2][2] = {}, mean[2], rstd[2];
    for_pairs([&](int i, int h, int, int) { totals[h][0] += sums[i] + sums[i + 1]; });
    sum_rows(memory, 0, totals);
    for (int h = 0; h < 2; ++h) mean[h] = totals[h][0] / C;
    for_pairs([&](int i, int h, int, int) {
        for (int e = 0; e < 2; ++e) squares[h][0] += (sums[i + e] - mean[h]) * (sums[i + e] - mean[h]);
    });
    sum_rows(memory, 1, squares);
    for (int h = 0; h < 2; ++h) rstd[h] = 1.0f / sqrtf(squares[h][0] / C + epsilon);
    for_pairs([&](int i, int h, int row, int column) {
        const Pair scale(gamma + column), shift(beta + column);
        float normal[2];
        for (int e = 0; e < 2; ++e) normal[e] = (sums[i + e] - mean[h]) * rstd[h] * scale.value[e] + shift.value[e];
        store(in_tile(tile, row, column), normal);
        if (column == 0) {
            means[row] = mean[h];
            rstds[row] = rstd[h];
        }
    });
    meet();
}

// dx = before + the gradient of the input x of a LayerNorm, whose output has the gradient in sums. dx, before and x are
// tiles; dx may be one of the others, and before may be null for zeros. partials (2, C): the block's sums for gamma and
// beta. Formulas as in layernorm.hip.
DEVICE void normalize_backward(Memory& memory, const float (&sums)[SUMS], bf16* dx, bf16* before, bf16* x,
                               const float* means, const float* rstds, const act* gamma, float* partials) {
    const int warp = threadIdx.x % WARPGROUP / 32, lane = threadIdx.x % 32;
    float totals[2][2] = {}, mean[2], rstd[2], of_columns[2][2];  // of_columns: of gamma and beta
    for (int h = 0; h < 2; ++h) {
        mean[h] = means[warp * 16 + lane / 4 + 8 * h];
        rstd[h] = rstds[warp * 16 + lane / 4 + 8 * h];
    }
    for_pairs([&](int i, int h, int row, int column) {
        const Pair scale(gamma + column), value(in_tile(x, row, column));
        for (int e = 0; e < 2; ++e) {
            const float dy = sums[i + e], normal = (value.value[e] - mean[h]) * rstd[h];
            totals[h][0] += dy * scale.value[e];
            totals[h][1] += dy * scale.value[e] * normal;
            of_columns[0][e] = dy * normal + (h ? of_columns[0][e] : 0.0f);
            of_columns[1][e] = dy + (h ? of_columns[1][e] : 0.0f);
        }
        if (h)
            for (int q = 0; q < 2; ++q)
                for (int e = 0; e < 2; ++e) {
                    float sum = of_columns[q][e];
                    sum += wave_exchange<4>(sum);
                    sum += wave_exchange<8>(sum);
                    sum += wave_exchange<16>(sum);
                    if (lane < 4) memory.of_columns[warp][q][column + e] = sum;
                }
    });
    sum_rows(memory, 0, totals);
    for (int at = threadIdx.x; at < 2 * C; at += MULTIPLIERS * WARPGROUP) {
        const float(&of)[4][2][C] = memory.of_columns;
        const int q = at / C, c = at % C;
        partials[at] = (of[0][q][c] + of[1][q][c]) + (of[2][q][c] + of[3][q][c]);
    }
    for_pairs([&](int i, int h, int row, int column) {
        const Pair scale(gamma + column), value(in_tile(x, row, column));
        float gradient[2] = {};
        if (before) load(gradient, in_tile(before, row, column));
        for (int e = 0; e < 2; ++e) {
            const float normal = (value.value[e] - mean[h]) * rstd[h];
            gradient[e] += rstd[h] * (sums[i + e] * scale.value[e] - totals[h][0] / C - normal * (totals[h][1] / C));
        }
        store(in_tile(dx, row, column), gradient);
    });
    meet();
}

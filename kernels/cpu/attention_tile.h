// Attention of a query tile: its operands, and the arithmetic of its rows between two GEMMs.
#pragma once
#include "formulas.h"
#include "cpu/runtime/scratch.h"
#include "cpu/select/gemm_tile.h"
#include <cmath>
#include <type_traits>

// GEMMs read activations: in bf16, scores are rounded into a second buffer; in f32 they are read where they were made.
constexpr bool ROUNDS = !std::is_same_v<act, float>;

// B (K, columns), packed: an operand that several GEMMs of a head read.
struct PackedB {
    PackedWord* words;
    int64_t K, columns;

    PackedB(ScratchArena& arena, int64_t K, int64_t columns)
        : words(arena.take(b_panel_size(K) * padded(columns, NR) / NR)), K(K), columns(columns) {}

    void pack(Matrix b) const { pack_b(words, b, K, columns); }

    // Its rows from k, a multiple of MR, on. K stays: it is how far micro-panels are apart.
    PackedB rows_from(int64_t k) const {
        PackedB rows = *this;
        rows.words += b_panel_size(k);
        return rows;
    }
};

// sums (rows, columns) = a B over the first K terms of B, or += if `accumulate`; a (rows, K).
static void multiply(float* sums, int64_t stride, PackedWord* copy, Matrix a, int64_t rows, int64_t K, const PackedB& b,
                     int64_t columns, bool accumulate = false) {
    multiply(pack_a(copy, a, rows, K, columns), b.words, b_panel_size(b.K), sums, stride, rows, columns, K, accumulate);
}

// sums (last, columns) = a^T B, or += if `accumulate`, for a query tile that begins at position `first`: a (rows, last) has
// zeros where a row's own position is before the column. A micro-panel of a^T begins at the first row without zeros.
static void multiply_causal(float* sums, int64_t stride, PackedWord* copy, const act* a, int64_t a_stride,
                            int64_t first, int64_t rows, const PackedB& b, int64_t columns, bool accumulate) {
    multiply(sums, stride, copy, {a, 1, a_stride}, first, rows, b, columns, accumulate);
    for (int64_t row = 0; row < rows; row += MR) {
        const Matrix diagonal = {a + row * a_stride + first + row, 1, a_stride};
        multiply(sums + (first + row) * stride, stride, copy, diagonal, std::min<int64_t>(MR, rows - row), rows - row,
                 b.rows_from(row), columns, accumulate);
    }
}

// The causal softmax before its division: of row r, the first visible + r scores become exp(scale * (score - maximum)),
// the others up to `end` become 0. totals: the rows' sums; logsumexp: of the scaled scores. Rows are `stride` apart,
// with room for whole vectors.
static void exponentials(float* scores, int64_t stride, int64_t rows, int64_t visible, int64_t end, float scale,
                         float* totals, float* logsumexp) {
    for (int64_t first = 0; first < rows; first += LANES) {
        const int64_t height = std::min<int64_t>(LANES, rows - first);
        Vector maxima_of_row[LANES] = {}, sums[LANES] = {};
        for (int64_t i = 0; i < height; ++i) {
            const int64_t count = visible + first + i;
            const float* const row = scores + (first + i) * stride;
            maxima_of_row[i] += row[0];
            for (int64_t j = 0; j < count; j += LANES)
                maxima_of_row[i] =
                    greater(first_lanes(count - j, vector_at(row + j), maxima_of_row[i]), maxima_of_row[i]);
        }
        const Vector maxima = maxima_of_rows(maxima_of_row);
        for (int64_t i = 0; i < height; ++i) {
            const int64_t count = visible + first + i;
            float* const row = scores + (first + i) * stride;
            const float maximum = maxima[i];
            for (int64_t j = 0; j < count; j += LANES) {
#pragma omp simd
                for (int64_t lane = j; lane < j + LANES; ++lane) row[lane] = exp_f32((row[lane] - maximum) * scale);
                sums[i] += vector_at(row + j) = first_lanes(count - j, vector_at(row + j), Vector{});
            }
            for (int64_t j = padded(count); j < end; j += LANES) vector_at(row + j) = Vector{};
        }
        const Vector row_sums = sums_of_rows(sums);
        for (int64_t i = 0; i < height; ++i) {
            totals[first + i] = row_sums[i];
            logsumexp[first + i] = maxima[i] * scale + std::log(row_sums[i]);
        }
    }
}

// Requests rows for L2: `parts` times D neighbouring values of each row, part_stride apart. A kernel requests those of the
// next head while it computes one, because hardware does not foresee rows that are far apart.
static void prefetch_rows(const act* rows, int64_t stride, int64_t count, int64_t parts, int64_t part_stride,
                          int64_t D) {
    for (int64_t r = 0; r < count; ++r)
        for (int64_t part = 0; part < parts; ++part)
            for (int64_t d = 0; d < D; d += LINE * int64_t{sizeof(float)} / int64_t{sizeof(act)})
                __builtin_prefetch(rows + r * stride + part * part_stride + d, 0, 2);
}

// One row of the backward pass: p, given as scores, becomes exp(p * scale - logsumexp), and ds, given as dp, becomes
// (ds - delta) * p * scale; both are 0 from `visible` to `end`.
static void backward_row(float* p, float* ds, int64_t visible, int64_t end, float scale, float logsumexp, float delta) {
    for (int64_t j = 0; j < visible; j += LANES) {
#pragma omp simd
        for (int64_t lane = j; lane < j + LANES; ++lane) p[lane] = exp_f32(p[lane] * scale - logsumexp);
        Vector& p_some = vector_at(p + j);
        Vector& ds_some = vector_at(ds + j);
        p_some = first_lanes(visible - j, p_some, Vector{});
        ds_some = first_lanes(visible - j, (ds_some - delta) * p_some * scale, Vector{});
    }
    for (int64_t j = padded(visible); j < end; j += LANES) vector_at(p + j) = vector_at(ds + j) = Vector{};
}

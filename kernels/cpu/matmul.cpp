// matmul_forward:         y = x weight^T + bias       y (N, O), x (N, C), weight (O, C), bias (O) or null; act
// matmul_backward_input:  dx = dy weight              dx (N, C), dy (N, O); act
// matmul_backward_weight: dweight += dy^T x, dbias += sum over rows of dy       dweight (O, C), dbias (O) or null; f32
// matmul_gelu_forward, matmul_relu_forward, matmul_relu2_forward: with hidden = x weight^T + bias,
//     y = activation(hidden), slope = activation'(hidden); GELU by the tanh form of formulas.h
// matmul_activation_backward_input: dhidden = (dy weight) * slope
// All row-major; sums in f32. Operations: 2*N*C*O each. Minimum traffic: N*O + N*C + O*C elements.
//
// All are one GEMM with different epilogues: gemm/blocked_product.h. Below MIN_GEMM_ROWS rows, each row is a GEMV, and some
// more rows are multiplied by rows of the weight, because packing the weight takes long for so few.
#include "formulas.h"
#include "cpu/gemm/accumulated_product.h"
#include "cpu/runtime/call.h"
#include "cpu/runtime/scratch.h"
#include "cpu/select/gemv.h"
#include "cpu/simd/f32_rows.h"

constexpr int MIN_GEMM_ROWS = 17;  // below, packing the weight takes longer than all products of its rows
// Between these numbers of rows the weight is not packed either, if x fills vectors as columns as well as it fills rows of
// tiles. AMX's GEMV is good for all rows below MIN_GEMM_ROWS.
constexpr int64_t LEAST_COLUMNS_OF_X = SUMS_IN_REGISTERS ? 8 : MIN_GEMM_ROWS, MOST_COLUMNS_OF_X = 128;

static float dot(const act* x, const act* weight, int64_t C) {
    float sum = 0;
    for (int64_t c = 0; c < C; ++c) sum += static_cast<float>(x[c]) * weight[c];
    return sum;
}

// target (columns, rows) = source (rows, columns) transposed. Both have room for whole vectors.
static void transpose_squares(float* target, int64_t target_stride, const float* source, int64_t source_stride,
                              int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < rows; row += LANES)
        for (int64_t column = 0; column < columns; column += LANES) {
            Vector square[LANES];
            for (int i = 0; i < LANES; ++i) square[i] = vector_at(source + (row + i) * source_stride + column);
            transpose(square);
            for (int i = 0; i < LANES; ++i) vector_at(target + (column + i) * target_stride + row) = square[i];
        }
}

// The few rows of decoding. A few rows of the weight stay in L1 while each row of x is multiplied by them.
template <class Epilogue>
static void forward_by_gemv(const act* x, const act* weight, int64_t N, int64_t O, int64_t C,
                            const Epilogue& epilogue) {
    parallel_ranges(O, 1 + 200000 / (N * C), GEMV_ROWS, [=](int64_t begin, int64_t end) {
        begin_gemv();
        float sums[GEMV_ROWS];
        for (int64_t o = begin; o < end; o += GEMV_ROWS) {
            const int64_t count = std::min(GEMV_ROWS, end - o), first = end - GEMV_ROWS;
            for (int64_t n = 0; n < N; ++n) {
                const act* const row = x + n * C;
                if (count == GEMV_ROWS) {
                    gemv(sums, row, weight + o * C, C);
                } else if (first >= 0) {  // the last full group, whose rows before o are dropped
                    gemv(sums, row, weight + first * C, C);
                    std::copy(sums + (o - first), sums + GEMV_ROWS, sums);
                } else {
                    for (int64_t r = 0; r < count; ++r) sums[r] = dot(row, weight + (o + r) * C, C);
                }
                epilogue(n, o, sums, count);
            }
        }
    });
}

// Some more rows: the weight is A, whose rows the tile reads in place, and x is B, which each thread packs for itself. The
// tile's sums are those of y^T, so they are transposed for the epilogue.
template <class Epilogue>
static void forward_by_weight_rows(const act* x, const act* weight, int64_t N, int64_t O, int64_t C,
                                   const Epilogue& epilogue) {
    constexpr int64_t OUTPUTS = padded(48, MR);
    const int64_t size = std::clamp<int64_t>(std::min(N * O * C / 200000, O / OUTPUTS), 1, thread_count());
    const int64_t each = quotient_up(O, OUTPUTS * size);
    Tasks tasks(size, each);
    parallel_team(size, [&](Team team) {
        if (team.rank >= team.size) return;
        begin_tiles();
        const int64_t width = padded(N, NR);
        ScratchArena arena;
        PackedWord* const b_panels = arena.take(b_panel_size(C) * width / NR);
        PackedWord* const copy = arena.take(packed_a_size(OUTPUTS, C));
        float* const by_outputs = arena.take(OUTPUTS * width);
        float* const by_rows = arena.take(width * OUTPUTS);
        pack_b(b_panels, {x, 1, C}, C, N);
        tasks.run(team, 0, [&](int64_t owner, int64_t task) {
            const int64_t o = (owner * each + task) * OUTPUTS, count = std::min(OUTPUTS, O - o);
            if (count <= 0) return;
            const PackedA a = pack_a(copy, {weight + o * C, C, 1}, count, C, N);
            multiply(a, b_panels, b_panel_size(C), by_outputs, width, count, N, C, false);
            transpose_squares(by_rows, OUTPUTS, by_outputs, width, count, N);
            for (int64_t n = 0; n < N; ++n) epilogue(n, o, by_rows + n * OUTPUTS, count);
        });
    });
}

template <class Epilogue>
static void forward(const act* x, const act* weight, int64_t N, int64_t O, int64_t C, const Epilogue& epilogue) {
    if (LEAST_COLUMNS_OF_X <= N && N <= MOST_COLUMNS_OF_X && padded(N) <= padded(N, MR))
        return forward_by_weight_rows(x, weight, N, O, C, epilogue);
    if (N < MIN_GEMM_ROWS) return forward_by_gemv(x, weight, N, O, C, epilogue);
    gemm(N, O, C, {x, C, 1}, {weight, 1, C}, epilogue);
}

// Returns sums + bias, in `values`; without a bias, the sums themselves.
static const float* add_bias(float* values, const float* sums, const act* bias, int64_t column, int64_t count) {
    if (!bias) return sums;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] = sums[i] + bias[column + i];
    return values;
}

extern "C" void matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                               int64_t C) {
    forward(x, weight, N, O, C, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        act* const target = y + row * O + column;
        if (!bias) return store(target, sums, count);
        float buffer[EPILOGUE_COLUMNS];
        add_bias(begin_row(target, buffer), sums, bias, column, count);
        finish_row(target, buffer, count);
    });
}

// y = activation(x weight^T + bias), and its slope there.
template <class Activation>
static void activated_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N,
                              int64_t O, int64_t C, const Activation& activation) {
    forward(x, weight, N, O, C, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        float hidden_buffer[EPILOGUE_COLUMNS], value_buffer[EPILOGUE_COLUMNS], slope_buffer[EPILOGUE_COLUMNS];
        const float* const hidden = add_bias(hidden_buffer, sums, bias, column, count);
        float* const values = begin_row(y + row * O + column, value_buffer);
        float* const slopes = begin_row(slope + row * O + column, slope_buffer);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) {
            const Activated activated = activation(hidden[i]);
            values[i] = activated.value;
            slopes[i] = activated.slope;
        }
        finish_row(y + row * O + column, values, count);
        finish_row(slope + row * O + column, slopes, count);
    });
}

extern "C" void matmul_gelu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N,
                                    int64_t O, int64_t C) {
    activated_forward(y, slope, x, weight, bias, N, O, C, [](float hidden) { return gelu(hidden); });
}

extern "C" void matmul_relu_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N,
                                    int64_t O, int64_t C) {
    activated_forward(y, slope, x, weight, bias, N, O, C, [](float hidden) { return relu(hidden); });
}

extern "C" void matmul_relu2_forward(act* y, act* slope, const act* x, const act* weight, const act* bias, int64_t N,
                                     int64_t O, int64_t C) {
    activated_forward(y, slope, x, weight, bias, N, O, C, [](float hidden) { return relu2(hidden); });
}

extern "C" void matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O) {
    gemm(N, C, O, {dy, O, 1}, {weight, C, 1}, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        store(dx + row * C + column, sums, count);
    });
}

extern "C" void matmul_activation_backward_input(act* dhidden, const act* dy, const act* weight, const act* slope,
                                                 int64_t N, int64_t C, int64_t O) {
    gemm(N, C, O, {dy, O, 1}, {weight, C, 1}, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        float slope_buffer[EPILOGUE_COLUMNS], buffer[EPILOGUE_COLUMNS];
        const float* const slopes = read_row(slope + row * C + column, slope_buffer, count);
        float* const values = begin_row(dhidden + row * C + column, buffer);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) values[i] = slopes[i] * sums[i];
        finish_row(dhidden + row * C + column, values, count);
    });
}

// sums (columns) += each row of x (rows, columns), rows `stride` apart. Some vectors of sums at a time stay in registers.
static void add_rows(float* sums, const act* x, int64_t stride, int64_t rows, int64_t columns) {
    constexpr int VECTORS = 4;
    int64_t column = 0;
    for (; column + VECTORS * LANES <= columns; column += VECTORS * LANES) {
        Vector some[VECTORS];
        for (int i = 0; i < VECTORS; ++i) some[i] = vector_at(sums + column + i * LANES);
        for (int64_t row = 0; row < rows; ++row)
            for (int i = 0; i < VECTORS; ++i) some[i] += load_vector(x + row * stride + column + i * LANES);
        for (int i = 0; i < VECTORS; ++i) vector_at(sums + column + i * LANES) = some[i];
    }
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t i = column; i < columns; ++i) sums[i] += x[row * stride + i];
}

extern "C" void matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C,
                                       int64_t N) {
    gemm_accumulate(dweight, O, C, N, Matrix{dy, 1, O}, {x, C, 1}, [=](const PackedBlock& block) {
        if (dbias) add_rows(dbias + block.row, dy + block.k * O + block.row, O, block.terms, block.rows);
    });
}

CALLABLE(matmul_forward)
CALLABLE(matmul_gelu_forward)
CALLABLE(matmul_relu_forward)
CALLABLE(matmul_relu2_forward)
CALLABLE(matmul_backward_input)
CALLABLE(matmul_activation_backward_input)
CALLABLE(matmul_backward_weight)

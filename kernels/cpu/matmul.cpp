// matmul_forward:         y = x weight^T + bias       y (N, O), x (N, C), weight (O, C), bias (O) or null
// matmul_backward_input:  dx = dy weight              dx (N, C), dy (N, O)
// matmul_backward_weight: dweight += dy^T x, dbias += sum over rows of dy
// matmul_gelu_forward:        hidden = x weight^T + bias, y = gelu(hidden), the tanh form of scalar.h
// matmul_gelu_backward_input: dhidden = (dy weight) * gelu'(hidden); relu: y = max(hidden, 0), dhidden = 0 where hidden <= 0
// All row-major f32. Operations: 2*N*C*O each. Minimum traffic: 4*(N*O + N*C + O*C) bytes.
//
// One product serves all three: C (M, N) = A (M, K) B (K, N), A and B given by their strides. B is packed into panels of
// PANEL columns, so that the innermost loop reads it in order; a register tile holds ROWS x PANEL sums over one block of
// K. Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication".
// A thread owns whole tiles of C, and each sum runs over k upwards: no result depends on the number of threads.
#include "../scalar.h"
#include "parallel.h"
#include "vector.h"
#include <memory>

// ROWS * 2 sums, 2 vectors of B and one of A fill the registers: 32 with AVX-512 and on aarch64, else 16.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int ROWS = 12;
#else
constexpr int ROWS = 6;
#endif
constexpr int PANEL = 2 * LANES;
constexpr int64_t BLOCK_K = 256, BLOCK_COLUMNS = 512, FEW_ROWS = 4;

struct Matrix {
    const float* data;
    int64_t row_stride, column_stride;
    const float* at(int64_t row, int64_t column) const { return data + row * row_stride + column * column_stride; }
};

// How a tile starts: from zero, from the bias of its columns, or from what C holds.
enum class Start { zero, bias, sum };

// R rows of C (R, columns <= PANEL) over K terms: C = start + A panel.
template <int R>
static void tile(int64_t K, Matrix a, const float* panel, float* c, int64_t c_stride, int64_t columns, Start start,
                 const float* bias) {
    Vector sums[R][2] = {};
    for (int64_t k = 0; k < K; ++k) {
        const Vector left = vector_at(panel + k * PANEL), right = vector_at(panel + k * PANEL + LANES);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            const float factor = *a.at(r, k);
            sums[r][0] += factor * left;
            sums[r][1] += factor * right;
        }
    }
    for (int r = 0; r < R; ++r) {
        float* row = c + r * c_stride;
        if (columns == PANEL) {
            if (start != Start::zero) {
                const float* before = start == Start::sum ? row : bias;
                sums[r][0] += vector_at(before);
                sums[r][1] += vector_at(before + LANES);
            }
            vector_at(row) = sums[r][0];
            vector_at(row + LANES) = sums[r][1];
        } else {
            for (int64_t column = 0; column < columns; ++column) {
                const float before = start == Start::sum ? row[column] : start == Start::bias ? bias[column] : 0.0f;
                row[column] = before + sums[r][column / LANES][column % LANES];
            }
        }
    }
}

using Tile = void (*)(int64_t, Matrix, const float*, float*, int64_t, int64_t, Start, const float*);

template <int R>
static Tile tile_of_rows(int64_t rows) {
    if constexpr (R == 1)
        return tile<1>;
    else
        return rows == R ? tile<R> : tile_of_rows<R - 1>(rows);
}

// Copies B[0:K, 0:columns] into panels of PANEL columns, k by k, the last one filled with zeros.
static void pack(float* panels, Matrix b, int64_t K, int64_t columns) {
    for (int64_t first = 0; first < columns; first += PANEL, panels += K * PANEL) {
        const int64_t width = std::min<int64_t>(PANEL, columns - first);
        if (width < PANEL) std::fill(panels, panels + K * PANEL, 0.0f);
        if (b.column_stride == 1) {
            for (int64_t k = 0; k < K; ++k) std::copy_n(b.at(k, first), width, panels + k * PANEL);
        } else {
            for (int64_t column = 0; column < width; ++column)
                for (int64_t k = 0; k < K; ++k) panels[k * PANEL + column] = *b.at(k, first + column);
        }
    }
}

// C[0:M, 0:N] = start + A B on the calling thread.
static void product_block(int64_t M, int64_t N, int64_t K, Matrix a, Matrix b, float* c, int64_t c_stride, Start start,
                          const float* bias) {
    const std::unique_ptr<float[]> panels(new float[BLOCK_K * (BLOCK_COLUMNS + PANEL)]);
    for (int64_t first = 0; first < N; first += BLOCK_COLUMNS) {
        const int64_t columns = std::min(BLOCK_COLUMNS, N - first);
        for (int64_t k = 0; k < K; k += BLOCK_K) {
            const int64_t terms = std::min(BLOCK_K, K - k);
            pack(panels.get(), {b.at(k, first), b.row_stride, b.column_stride}, terms, columns);
            for (int64_t row = 0; row < M; row += ROWS) {
                const Tile multiply = tile_of_rows<ROWS>(std::min<int64_t>(ROWS, M - row));
                for (int64_t column = 0; column < columns; column += PANEL)
                    multiply(terms, {a.at(row, k), a.row_stride, a.column_stride}, panels.get() + column * terms,
                             c + row * c_stride + first + column, c_stride, std::min<int64_t>(PANEL, columns - column),
                             k == 0 ? start : Start::sum, bias ? bias + first + column : nullptr);
            }
        }
    }
}

// What follows a product, on the thread that made those rows and columns of C (M, N) and while they are in its cache.
struct Nothing {
    void operator()(int64_t, int64_t, int64_t, int64_t) const {}
};

// For each row, range(begin, end) of the elements in it that were made.
template <class Range>
struct EachRow {
    int64_t N;
    Range range;
    void operator()(int64_t first_row, int64_t last_row, int64_t first_column, int64_t last_column) const {
        for (int64_t row = first_row; row < last_row; ++row) range(row * N + first_column, row * N + last_column);
    }
};

template <class Range>
static EachRow<Range> each_row(int64_t N, Range range) {
    return {N, range};
}

// The same on all threads, split along the longer side of C.
template <class Epilogue>
static void product(int64_t M, int64_t N, int64_t K, Matrix a, Matrix b, float* c, Start start, const float* bias,
                    const Epilogue& epilogue) {
    const int64_t smallest = std::max<int64_t>(1, 200000 / (std::min(M, N) * K));
    if (M >= N)
        parallel_ranges(M, (smallest + ROWS - 1) / ROWS * ROWS, [=](int64_t begin, int64_t end) {
            product_block(end - begin, N, K, {a.at(begin, 0), a.row_stride, a.column_stride}, b, c + begin * N, N, start,
                          bias);
            epilogue(begin, end, 0, N);
        });
    else
        parallel_ranges(N, (smallest + PANEL - 1) / PANEL * PANEL, [=](int64_t begin, int64_t end) {
            product_block(M, end - begin, K, a, {b.at(0, begin), b.row_stride, b.column_stride}, c + begin, N, start,
                          bias ? bias + begin : nullptr);
            epilogue(0, M, begin, end);
        });
}

// The few rows of decoding: packing the weights would cost more than the product, and their rows are read in order.
template <class Epilogue>
static void few_rows_forward(float* y, const float* x, const float* weight, const float* bias, int64_t N, int64_t O,
                             int64_t C, const Epilogue& epilogue) {
    parallel_ranges(O, (200000 / (N * C) / PANEL + 1) * PANEL, [=](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; ++o)
            for (int64_t n = 0; n < N; ++n) {
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t c = 0; c < C; ++c) sum += x[n * C + c] * weight[o * C + c];
                y[n * O + o] = sum + (bias ? bias[o] : 0.0f);
            }
        epilogue(0, N, begin, end);
    });
}

template <class Epilogue>
static void forward(float* y, const float* x, const float* weight, const float* bias, int64_t N, int64_t O, int64_t C,
                    const Epilogue& epilogue) {
    if (N < FEW_ROWS) return few_rows_forward(y, x, weight, bias, N, O, C, epilogue);
    product(N, O, C, {x, C, 1}, {weight, 1, C}, y, bias ? Start::bias : Start::zero, bias, epilogue);
}

extern "C" void matmul_forward(float* y, const float* x, const float* weight, const float* bias, int64_t N, int64_t O,
                               int64_t C) {
    forward(y, x, weight, bias, N, O, C, Nothing{});
}

extern "C" void matmul_gelu_forward(float* y, float* hidden, const float* x, const float* weight, const float* bias,
                                    int64_t N, int64_t O, int64_t C) {
    forward(hidden, x, weight, bias, N, O, C, each_row(O, [=](int64_t begin, int64_t end) {
#pragma omp simd
                for (int64_t i = begin; i < end; ++i) y[i] = gelu(hidden[i]);
            }));
}

extern "C" void matmul_relu_forward(float* y, float* hidden, const float* x, const float* weight, const float* bias,
                                    int64_t N, int64_t O, int64_t C) {
    forward(hidden, x, weight, bias, N, O, C, each_row(O, [=](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) y[i] = hidden[i] > 0 ? hidden[i] : 0;
            }));
}

extern "C" void matmul_backward_input(float* dx, const float* dy, const float* weight, int64_t N, int64_t C, int64_t O) {
    product(N, C, O, {dy, O, 1}, {weight, C, 1}, dx, Start::zero, nullptr, Nothing{});
}

extern "C" void matmul_gelu_backward_input(float* dhidden, const float* dy, const float* weight, const float* hidden,
                                           int64_t N, int64_t C, int64_t O) {
    product(N, C, O, {dy, O, 1}, {weight, C, 1}, dhidden, Start::zero, nullptr, each_row(C, [=](int64_t begin, int64_t end) {
#pragma omp simd
                for (int64_t i = begin; i < end; ++i) dhidden[i] *= gelu_derivative(hidden[i]);
            }));
}

extern "C" void matmul_relu_backward_input(float* dhidden, const float* dy, const float* weight, const float* hidden,
                                           int64_t N, int64_t C, int64_t O) {
    product(N, C, O, {dy, O, 1}, {weight, C, 1}, dhidden, Start::zero, nullptr, each_row(C, [=](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) dhidden[i] = hidden[i] > 0 ? dhidden[i] : 0;
            }));
}

extern "C" void matmul_backward_weight(float* dweight, float* dbias, const float* dy, const float* x, int64_t O,
                                       int64_t C, int64_t N) {
    product(O, C, N, {dy, 1, O}, {x, C, 1}, dweight, Start::sum, nullptr, Nothing{});
    if (dbias)
        parallel_ranges(O, 64, [=](int64_t begin, int64_t end) {
            for (int64_t n = 0; n < N; ++n)
                for (int64_t o = begin; o < end; ++o) dbias[o] += dy[n * O + o];
        });
}

// matmul_forward:         y = x weight^T + bias       y (N, O), x (N, C), weight (O, C), bias (O) or null
// matmul_backward_input:  dx = dy weight              dx (N, C), dy (N, O)
// matmul_backward_weight: dweight += dy^T x, dbias += sum over rows of dy
// matmul_gelu_forward:        hidden = x weight^T + bias, y = gelu(hidden), the tanh form of scalar.h
// matmul_gelu_backward_input: dhidden = (dy weight) * gelu'(hidden); relu: y = max(hidden, 0), dhidden = 0 where hidden <= 0
// All row-major; sums in f32. Operations: 2*N*C*O each. Minimum traffic: N*O + N*C + O*C elements.
//
// One product serves all: C (M, N) = A (M, K) B (K, N), A and B given by their strides. B is packed into panels of PANEL
// columns, so that the innermost loop reads it in order; a register tile holds ROWS x PANEL sums over K, or as
// many terms of it as the caches have room for.
// Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication".
// product.h is the tile: product/plain.h, or what the processor has beyond. What becomes of the sums is the op's `finish`.
// A thread owns whole tiles of C, and each sum runs over k upwards: no result depends on the number of threads.
#include "../scalar.h"
#include "call.h"
#include "matrix.h"
#include "parallel.h"
#include "product.h"
#include "convert.h"
#include "vector.h"
#include <memory>

// What is packed of A and B at a time shall stay in the second cache, of B RIGHT_WORDS; sums of a PATCH, in the first. More terms
// than MOST_TERMS are summed in turns, BLOCK_ROWS by BLOCK_COLUMNS sums at a time.
constexpr int64_t MOST_TERMS = PARTS > 1 ? 512 : 1024;
constexpr int64_t BLOCK_ROWS = 512 / ROWS * ROWS, BLOCK_COLUMNS = 256, LEFT_ROWS = 96, PATCH = 128, FEW_ROWS = 4, DOT_ROWS = 64;
constexpr int64_t RIGHT_WORDS = 1 << 18;
static_assert(BLOCK_COLUMNS / PANEL * panel_size(MOST_TERMS) <= RIGHT_WORDS && LEFT_ROWS % ROWS == 0);

// A thread's own memory, kept from product to product.
struct Workspace {
    alignas(64) Word left[left_size(LEFT_ROWS, MOST_TERMS)], right[RIGHT_WORDS];
    alignas(64) float sums[BLOCK_ROWS * BLOCK_COLUMNS];
};
static thread_local std::unique_ptr<Workspace> workspace;

// sums (rows, columns), `stride` apart, = or += a (rows, terms) times the packed B; where `ends`, all terms are in them and
// finish(row, column, sums, count) takes each row by PATCH columns. With a stride of PATCH there is room for one strip's patch.
template <class Finish>
static void multiply_rows(Workspace& work, float* sums, int64_t stride, Matrix a, int64_t rows, int64_t columns,
                          int64_t terms, bool goes_on, bool ends, const Finish& finish) {
    Left left = pack_left(work.left, a, rows, terms);
    for (int64_t row = 0; row < rows; row += ROWS, left.data += left.strip_stride) {
        const int64_t height = std::min<int64_t>(ROWS, rows - row);
        for (int64_t column = 0; column < columns; column += PATCH) {
            const int64_t width = std::min(PATCH, columns - column);
            float* const patch = stride == PATCH ? sums : sums + row * stride + column;
            const Word* const panels = work.right + column / PANEL * panel_size(terms);
            multiply(left, panels, panel_size(terms), patch, stride, height, width, terms, goes_on);
            for (int64_t i = 0; ends && i < height; ++i) finish(row + i, column, patch + i * stride, width);
        }
    }
}

// Calls finish(row, column, sums, count) for all of C[begin_row:end_row, begin_column:end_column].
template <class Finish>
static void product_block(int64_t begin_row, int64_t end_row, int64_t begin_column, int64_t end_column, int64_t K, Matrix a,
                          Matrix b, const Finish& finish) {
    if (!workspace) workspace.reset(new Workspace);
    Workspace& work = *workspace;
    begin_tiles();
    const bool in_turns = K > MOST_TERMS;
    const int64_t all_rows = end_row - begin_row, blocks = in_turns ? (all_rows + BLOCK_ROWS - 1) / BLOCK_ROWS : 1;
    const int64_t block_rows = padded((all_rows + blocks - 1) / blocks, ROWS), stride = in_turns ? BLOCK_COLUMNS : PATCH;
    const int64_t block_columns = in_turns ? BLOCK_COLUMNS : RIGHT_WORDS / panel_size(K) * PANEL;
    for (int64_t column = begin_column; column < end_column; column += block_columns)
        for (int64_t row = begin_row; row < end_row; row += block_rows)
            for (int64_t k = 0; k < K; k += MOST_TERMS) {
                const int64_t terms = std::min(K - k, MOST_TERMS), columns = std::min(block_columns, end_column - column);
                const int64_t last_row = std::min(row + block_rows, end_row);
                pack_right(work.right, {b.at(k, column), b.row_stride, b.column_stride}, terms, columns);
                for (int64_t top = row; top < last_row; top += LEFT_ROWS) {
                    float* const sums = in_turns ? work.sums + (top - row) * stride : work.sums;
                    const Matrix rows = {a.at(top, k), a.row_stride, a.column_stride};
                    multiply_rows(work, sums, stride, rows, std::min(LEFT_ROWS, last_row - top), columns, terms, k > 0,
                                  k + terms == K, [&](int64_t i, int64_t j, const float* values, int64_t count) {
                                      finish(top + i, column + j, values, count);
                                  });
                }
            }
}

// The same on all threads, split along the longer side of C.
template <class Finish>
static void product(int64_t M, int64_t N, int64_t K, Matrix a, Matrix b, const Finish& finish) {
    const int64_t smallest = std::max<int64_t>(1, 200000 / (std::min(M, N) * K));
    if (M >= N)
        parallel_ranges(M, (smallest + ROWS - 1) / ROWS * ROWS, [=](int64_t begin, int64_t end) {
            product_block(begin, end, 0, N, K, a, b, finish);
        });
    else
        parallel_ranges(N, (smallest + PANEL - 1) / PANEL * PANEL, [=](int64_t begin, int64_t end) {
            product_block(0, M, begin, end, K, a, b, finish);
        });
}

// sums[r] = x . row r of weight (DOT_ROWS, C): a vector for each row, one alone would wait for each of its additions.
static void dot_rows(float* sums, const act* x, const act* weight, int64_t C) {
    for (int64_t row = 0; row < DOT_ROWS; row += LANES, sums += LANES, weight += LANES * C) {
        Vector partial[LANES] = {};
        int64_t c = 0;
        for (; c + DOT_TERMS <= C; c += DOT_TERMS)
#pragma GCC unroll 16
            for (int r = 0; r < LANES; ++r) partial[r] = add_products(partial[r], x + c, weight + r * C + c);
        vector_at(sums) = sums_of_rows(partial);
        for (; c < C; ++c)
            for (int r = 0; r < LANES; ++r) sums[r] += static_cast<float>(x[c]) * weight[r * C + c];
    }
}

static float dot(const act* x, const act* weight, int64_t C) {
    float sum = 0;
    for (int64_t c = 0; c < C; ++c) sum += static_cast<float>(x[c]) * weight[c];
    return sum;
}

// The few rows of decoding: packing the weights would cost more than the product, and their rows are read in order.
template <class Finish>
static void few_rows_forward(const act* x, const act* weight, int64_t N, int64_t O, int64_t C, const Finish& finish) {
    parallel_ranges(O, (200000 / (N * C) / DOT_ROWS + 1) * DOT_ROWS, [=](int64_t begin, int64_t end) {
        float sums[DOT_ROWS];
        for (int64_t o = begin; o < end; o += DOT_ROWS) {
            const int64_t count = std::min(DOT_ROWS, end - o), first = end - DOT_ROWS;
            for (int64_t n = 0; n < N; ++n) {
                const act* const row = x + n * C;
                if (count == DOT_ROWS)
                    dot_rows(sums, row, weight + o * C, C);
                else if (first >= 0) {  // the last ones, and some again, be they another thread's
                    dot_rows(sums, row, weight + first * C, C);
                    std::copy(sums + (o - first), sums + DOT_ROWS, sums);
                } else
                    for (int64_t r = 0; r < count; ++r) sums[r] = dot(row, weight + (o + r) * C, C);
                finish(n, o, sums, count);
            }
        }
    });
}

template <class Finish>
static void forward(const act* x, const act* weight, int64_t N, int64_t O, int64_t C, const Finish& finish) {
    if (N < FEW_ROWS) return few_rows_forward(x, weight, N, O, C, finish);
    product(N, O, C, {x, C, 1}, {weight, 1, C}, finish);
}

// Returns sums, or where there is a bias `values`, set to the sums with it.
static const float* with_bias(float* values, const float* sums, const act* bias, int64_t column, int64_t count) {
    if (!bias) return sums;
    for (int64_t i = 0; i < count; ++i) values[i] = sums[i] + bias[column + i];
    return values;
}

extern "C" void matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C) {
    forward(x, weight, N, O, C, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        float values[PATCH];
        store(y + row * O + column, with_bias(values, sums, bias, column, count), count);
    });
}

extern "C" void matmul_gelu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N,
                                    int64_t O, int64_t C) {
    forward(x, weight, N, O, C, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        float values[PATCH];
        const float* before = with_bias(values, sums, bias, column, count);
        store(hidden + row * O + column, before, count);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) values[i] = gelu(before[i]);
        store(y + row * O + column, values, count);
    });
}

extern "C" void matmul_relu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N,
                                    int64_t O, int64_t C) {
    forward(x, weight, N, O, C, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        float values[PATCH];
        const float* before = with_bias(values, sums, bias, column, count);
        store(hidden + row * O + column, before, count);
        for (int64_t i = 0; i < count; ++i) values[i] = before[i] > 0 ? before[i] : 0.0f;
        store(y + row * O + column, values, count);
    });
}

extern "C" void matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O) {
    product(N, C, O, {dy, O, 1}, {weight, C, 1}, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        store(dx + row * C + column, sums, count);
    });
}

extern "C" void matmul_gelu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N,
                                           int64_t C, int64_t O) {
    product(N, C, O, {dy, O, 1}, {weight, C, 1}, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        float values[PATCH];
        load(values, hidden + row * C + column, count);
#pragma omp simd
        for (int64_t i = 0; i < count; ++i) values[i] = sums[i] * gelu_derivative(values[i]);
        store(dhidden + row * C + column, values, count);
    });
}

extern "C" void matmul_relu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N,
                                           int64_t C, int64_t O) {
    product(N, C, O, {dy, O, 1}, {weight, C, 1}, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        const act* before = hidden + row * C + column;
        act* out = dhidden + row * C + column;
        for (int64_t i = 0; i < count; ++i) out[i] = before[i] > 0 ? sums[i] : 0.0f;
    });
}

extern "C" void matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C,
                                       int64_t N) {
    product(O, C, N, {dy, 1, O}, {x, C, 1}, [=](int64_t row, int64_t column, const float* sums, int64_t count) {
        float* out = dweight + row * C + column;
        for (int64_t i = 0; i < count; ++i) out[i] += sums[i];
    });
    if (dbias)
        parallel_ranges(O, (worth_a_thread(N) + 63) / 64 * 64, [=](int64_t begin, int64_t end) {
            for (int64_t n = 0; n < N; ++n)
                for (int64_t o = begin; o < end; ++o) dbias[o] += dy[n * O + o];
        });
}

CALLABLE(matmul_forward)
CALLABLE(matmul_gelu_forward)
CALLABLE(matmul_relu_forward)
CALLABLE(matmul_backward_input)
CALLABLE(matmul_gelu_backward_input)
CALLABLE(matmul_relu_backward_input)
CALLABLE(matmul_backward_weight)

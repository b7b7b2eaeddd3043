// The products of a linear layer in bf16 by matrix units: formulas in kernels/cpu/matmul.cpp, sums in f32.
//
// One tiled product C (M, N) = A (M, K) B (N, K)^T serves all. A block of WAVES waves makes a SIDE x SIDE piece of C; side.h
// says whether SIDE is 128, 64 or 32, so that small products fill the chip too. DEPTH terms of both operands are a stage in shared memory; STAGES
// of them are under way, so that copies run beside the products. At 32, each wave makes the whole piece from its share of the
// terms, and the waves' sums are added in order.
// Grid: ceil(N / SIDE) x ceil(M / SIDE).
// Where that is too few blocks for a long sum, as for the gradient of a weight, matmul_backward_weight_parts leaves the sums of
// `parts` parts of the terms apart, grid ... x parts, and add_parts adds them, grid ceil((O * C + O) / THREADS_ADDING).
#include "platform.h"
#include "values.h"
#include "scalar.h"
#include "fragment.h"
#include "side.h"

constexpr int WAVES = 4, THREADS = WAVES * WAVE, STAGES = 3, SQUARE = 16, STAGE_BYTES = 16 << 10;

// The rows of a matrix in memory have `stride` elements each.
struct Matrix {
    const bf16* data;
    int64_t stride;
};

// Copies ROWS rows i by DEPTH terms k of an operand into a tile, stage after stage.
// ALONG_TERMS: memory holds element (i, k) at i * stride + k, and so does the tile; else at k * stride + i.
template <int ROWS, int DEPTH, bool ALONG_TERMS>
struct Copier {
    static constexpr int CHUNKS = (ALONG_TERMS ? DEPTH : ROWS) / WIDTH, EACH = ROWS * DEPTH / WIDTH / THREADS;
    static constexpr int STEP = THREADS / CHUNKS;  // rows of the tile between a thread's chunks
    static_assert(STEP % 8 == 0, "the permutation of a tile's chunks repeats after 8 rows");
    const bf16* next;               // the thread's first chunk in the coming stage
    int64_t step, rows_left, left;  // elements between its chunks; rows i from its first on; terms k from its first on
    int place;                      // of its first chunk in the tile
    bool wide;

    DEVICE_MEMBER Copier(Matrix source, int64_t first_row, int64_t rows, int64_t first_term, int64_t terms) {
        const int tile_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        const int64_t i = first_row + (ALONG_TERMS ? tile_row : chunk * WIDTH);
        const int64_t k = first_term + (ALONG_TERMS ? chunk * WIDTH : tile_row);
        next = source.data + (ALONG_TERMS ? i * source.stride + k : k * source.stride + i);
        step = STEP * source.stride;
        rows_left = rows - i;
        left = terms - k;
        place = Tile<CHUNKS>::place(tile_row, chunk);
        wide = is_wide(source.stride);
    }

    DEVICE_MEMBER void copy_stage(bf16* tile) {
        if (wide) {
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const bool inside = rows_left > (ALONG_TERMS ? e * STEP : 0) && left > (ALONG_TERMS ? 0 : e * STEP);
                copy_chunk(tile + place + e * STEP * CHUNKS * WIDTH, next + e * step, inside);
            }
        } else {
#pragma unroll 1
            for (int e = 0; e < EACH; ++e) {
                const int64_t rows = rows_left - (ALONG_TERMS ? e * STEP : 0), terms = left - (ALONG_TERMS ? 0 : e * STEP);
                const int64_t count = rows > 0 && terms > 0 ? (ALONG_TERMS ? terms : rows) : 0;
                copy_elements(tile + place + e * STEP * CHUNKS * WIDTH, next + e * step, count);
            }
        }
        next += ALONG_TERMS ? DEPTH : step / STEP * DEPTH;
        left -= DEPTH;
    }

    static DEVICE_MEMBER Fragment::Operand load(bf16* tile, int first_row, int first_term) {
        if constexpr (ALONG_TERMS)
            return Fragment::load(Tile<CHUNKS>{tile}, first_row, first_term);
        else
            return Fragment::load_transposed(Tile<CHUNKS>{tile}, first_row, first_term);
    }
};

// Which piece of C a block makes: pieces are visited in bands of BAND rows of pieces, so that those at work share operands in
// the cache.
struct Place {
    int64_t row, column;
};

DEVICE Place place_of_block() {
    constexpr int64_t BAND = 8;
    const int64_t columns = gridDim.x, linear = int64_t{blockIdx.y} * columns + blockIdx.x, size = BAND * columns;
    const int64_t first = linear / size * BAND, rows = gridDim.y - first < BAND ? gridDim.y - first : BAND;
    return {first + linear % size % rows, linear % size / rows};
}

// A_ALONG, B_ALONG: see Copier.
template <bool A_ALONG, bool B_ALONG>
struct Product {
    static constexpr int DEPTH = STAGE_BYTES / 4 / SIDE, PART = SIDE == 128 ? 64 : 32, PARTS = SIDE / PART;
    static constexpr int GROUPS = WAVES / (PARTS * PARTS), SQUARES = PART / SQUARE, TERMS = DEPTH / GROUPS;
    using CopierA = Copier<SIDE, DEPTH, A_ALONG>;
    using CopierB = Copier<SIDE, DEPTH, B_ALONG>;
    using Sum = Fragment::Sum;

    // A grid of several blocks along z cuts the terms into as many parts.
    static DEVICE_MEMBER int64_t terms_of_part(int64_t K) {
        const int64_t stages = (K + DEPTH - 1) / DEPTH;
        return (stages + gridDim.z - 1) / gridDim.z * DEPTH;
    }

    // Calls store(row, column, values, count) for runs of neighbours inside C, and row_store(row, sum) for the sums of A's rows
    // if it wants them.
    template <class Store, class RowStore>
    static DEVICE_MEMBER void run(bf16* memory, Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Store& store,
                                  const RowStore& row_store) {
        const Place place = place_of_block();
        const int wave = threadIdx.x / WAVE, group = wave / (PARTS * PARTS);
        const int row = wave / PARTS % PARTS * PART, column = wave % PARTS * PART;
        const int64_t first_row = place.row * SIDE, first_column = place.column * SIDE;
        const int64_t first_term = blockIdx.z * terms_of_part(K), end = first_term + terms_of_part(K);
        const int64_t last_term = end < K ? end : K;
        const int stages = last_term > first_term ? static_cast<int>((last_term - first_term + DEPTH - 1) / DEPTH) : 0;
        const bool sums_rows = RowStore::POSSIBLE && place.column == 0 && column == 0 && row_store.wanted();
        CopierA copier_a(a, first_row, M, first_term, last_term);
        CopierB copier_b(b, first_column, N, first_term, last_term);
        Sum sums[SQUARES][SQUARES] = {}, row_sums[RowStore::POSSIBLE ? SQUARES : 1] = {};
        auto copy_stage = [&](int stage) {
            bf16* tile = memory + stage % STAGES * (STAGE_BYTES / 2);
            if (stage < stages) {
                copier_a.copy_stage(tile);
                copier_b.copy_stage(tile + SIDE * DEPTH);
            }
            copies_commit();
        };
#pragma unroll 1
        for (int stage = 0; stage < STAGES - 1; ++stage) copy_stage(stage);
#pragma unroll 1
        for (int stage = 0; stage < stages; ++stage) {
            copies_wait<STAGES - 2>();
            __syncthreads();
            copy_stage(stage + STAGES - 1);
            bf16 *tile_a = memory + stage % STAGES * (STAGE_BYTES / 2), *tile_b = tile_a + SIDE * DEPTH;
#pragma unroll
            for (int k = 0; k < TERMS; k += SQUARE) {
                Fragment::Operand left[SQUARES], right[SQUARES];
#pragma unroll
                for (int i = 0; i < SQUARES; ++i) {
                    left[i] = CopierA::load(tile_a, row + i * SQUARE, group * TERMS + k);
                    right[i] = CopierB::load(tile_b, column + i * SQUARE, group * TERMS + k);
                }
#pragma unroll
                for (int r = 0; r < SQUARES; ++r)
#pragma unroll
                    for (int c = 0; c < SQUARES; ++c) Fragment::multiply(sums[r][c], left[r], right[c]);
                if constexpr (RowStore::POSSIBLE)
                    if (sums_rows)
#pragma unroll
                        for (int r = 0; r < SQUARES; ++r) Fragment::multiply(row_sums[r], left[r], Fragment::ones());
            }
        }
        if constexpr (GROUPS > 1) {
            __syncthreads();
            float* shared = reinterpret_cast<float*>(memory);
#pragma unroll
            for (int r = 0; r < SQUARES; ++r) {
#pragma unroll
                for (int c = 0; c < SQUARES; ++c) gather(shared, sums[r][c], group, r * SQUARES + c);
                if (sums_rows) gather(shared, row_sums[RowStore::POSSIBLE ? r : 0], group, SQUARES * SQUARES + r);
            }
            __syncthreads();
#pragma unroll
            for (int r = 0; r < SQUARES; ++r) {
#pragma unroll
                for (int c = 0; c < SQUARES; ++c)
                    if (group == r * SQUARES + c) add_groups(shared, sums[r][c], r * SQUARES + c);
                if (sums_rows && group == 0) add_groups(shared, row_sums[RowStore::POSSIBLE ? r : 0], SQUARES * SQUARES + r);
            }
        }
#pragma unroll
        for (int r = 0; r < SQUARES; ++r) {
#pragma unroll
            for (int c = 0; c < SQUARES; ++c)
                if (GROUPS == 1 || group == r * SQUARES + c)
                    write(sums[r][c], first_row + row + r * SQUARE, first_column + column + c * SQUARE, M, N, store);
            if (sums_rows && group == 0)
                for (int e = 0; e < Fragment::SIZE; ++e) {
                    const int64_t at = first_row + row + r * SQUARE + Fragment::row(Fragment::slot(e));
                    if (Fragment::column(e) == 0 && at < M) row_store(at, row_sums[RowStore::POSSIBLE ? r : 0].value[e]);
                }
        }
    }

    static constexpr int KEPT = SQUARES * SQUARES + SQUARES;  // squares that a group leaves in shared memory

    static DEVICE_MEMBER void gather(float* shared, const Sum& sum, int group, int square) {
        for (int e = 0; e < Fragment::SIZE; ++e)
            shared[((group * KEPT + square) * Fragment::SIZE + e) * WAVE + threadIdx.x % WAVE] = sum.value[e];
    }

    // The sum of all groups' squares of that number, in order.
    static DEVICE_MEMBER void add_groups(const float* shared, Sum& sum, int square) {
        for (int e = 0; e < Fragment::SIZE; ++e) {
            float total = 0.0f;
            for (int group = 0; group < GROUPS; ++group)
                total += shared[((group * KEPT + square) * Fragment::SIZE + e) * WAVE + threadIdx.x % WAVE];
            sum.value[e] = total;
        }
    }

    template <class Store>
    static DEVICE_MEMBER void write(const Sum& sum, int64_t first_row, int64_t first_column, int64_t M, int64_t N,
                                    const Store& store) {
#pragma unroll
        for (int e = 0; e < Fragment::SIZE; e += Fragment::NEIGHBOURS) {
            const int64_t row = first_row + Fragment::row(Fragment::slot(e)), column = first_column + Fragment::column(e);
            float values[Fragment::NEIGHBOURS];
            for (int i = 0; i < Fragment::NEIGHBOURS; ++i) values[i] = sum.value[e + i];
            if (row < M && column < N) store(row, column, values, N - column);
        }
    }
};

template <bool A_ALONG, bool B_ALONG, class Store, class RowStore>
DEVICE void multiply(Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Store& store, const RowStore& row_store) {
    __shared__ Words memory[STAGES * STAGE_BYTES / 16];
    Product<A_ALONG, B_ALONG>::run(reinterpret_cast<bf16*>(memory), a, b, M, N, K, store, row_store);
}

using Run = float[Fragment::NEIGHBOURS];

// Writes the first `count` of a run of neighbours, as one word where they are two and lie so.
DEVICE void store_run(bf16* target, const Run& values, int64_t count) {
    if constexpr (Fragment::NEIGHBOURS == 2)
        if (count >= 2 && reinterpret_cast<uint64_t>(target) % 4 == 0) {
            *reinterpret_cast<uint32_t*>(target) = bf16_pair(values[0], values[1]);
            return;
        }
    for (int i = 0; i < Fragment::NEIGHBOURS; ++i)
        if (i < count) narrow(target[i], values[i]);
}

struct NoRowSums {
    static constexpr bool POSSIBLE = false;
    DEVICE_MEMBER bool wanted() const { return false; }
    DEVICE_MEMBER void operator()(int64_t, float) const {}
};

struct SetRowSums {
    static constexpr bool POSSIBLE = true;
    float* target;
    DEVICE_MEMBER bool wanted() const { return true; }
    DEVICE_MEMBER void operator()(int64_t row, float sum) const { target[row] = sum; }
};

struct AddRowSums {
    static constexpr bool POSSIBLE = true;
    float* target;  // or null
    DEVICE_MEMBER bool wanted() const { return target; }
    DEVICE_MEMBER void operator()(int64_t row, float sum) const { target[row] += sum; }
};

// Calls store(place in y, run of sum + bias, how many of the run are inside).
template <class Store>
DEVICE void forward(const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C, const Store& store) {
    auto add_bias = [=](int64_t n, int64_t o, Run& values, int64_t count) {
        if (bias)
            for (int i = 0; i < Fragment::NEIGHBOURS; ++i)
                if (i < count) values[i] += widen(bias[o + i]);
        store(n * O + o, values, count);
    };
    multiply<true, true>({x, C}, {weight, C}, N, O, C, add_bias, NoRowSums{});
}

// Calls store(place in dx, run of sums, how many of the run are inside).
template <class Store>
DEVICE void backward_input(const act* dy, const act* weight, int64_t N, int64_t C, int64_t O, const Store& store) {
    auto at = [=](int64_t n, int64_t c, Run& values, int64_t count) { store(n * C + c, values, count); };
    multiply<true, false>({dy, O}, {weight, C}, N, C, O, at, NoRowSums{});
}

KERNEL(THREADS) matmul_forward(act* y, const act* x, const act* weight, const act* bias, int64_t N, int64_t O, int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, Run& values, int64_t count) { store_run(y + i, values, count); });
}

KERNEL(THREADS) matmul_gelu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                                    int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, Run& values, int64_t count) {
        store_run(hidden + i, values, count);
        for (float& value : values) value = gelu(value);
        store_run(y + i, values, count);
    });
}

KERNEL(THREADS) matmul_relu_forward(act* y, act* hidden, const act* x, const act* weight, const act* bias, int64_t N, int64_t O,
                                    int64_t C) {
    forward(x, weight, bias, N, O, C, [=](int64_t i, Run& values, int64_t count) {
        store_run(hidden + i, values, count);
        for (float& value : values) value = fmaxf(value, 0.0f);
        store_run(y + i, values, count);
    });
}

KERNEL(THREADS) matmul_backward_input(act* dx, const act* dy, const act* weight, int64_t N, int64_t C, int64_t O) {
    backward_input(dy, weight, N, C, O, [=](int64_t i, Run& values, int64_t count) { store_run(dx + i, values, count); });
}

KERNEL(THREADS) matmul_gelu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N, int64_t C,
                                           int64_t O) {
    backward_input(dy, weight, N, C, O, [=](int64_t i, Run& values, int64_t count) {
        for (int e = 0; e < Fragment::NEIGHBOURS; ++e)
            if (e < count) values[e] *= gelu_derivative(widen(hidden[i + e]));
        store_run(dhidden + i, values, count);
    });
}

KERNEL(THREADS) matmul_relu_backward_input(act* dhidden, const act* dy, const act* weight, const act* hidden, int64_t N, int64_t C,
                                           int64_t O) {
    backward_input(dy, weight, N, C, O, [=](int64_t i, Run& values, int64_t count) {
        for (int e = 0; e < Fragment::NEIGHBOURS; ++e)
            if (e < count && widen(hidden[i + e]) <= 0.0f) values[e] = 0.0f;
        store_run(dhidden + i, values, count);
    });
}

// dbias is the sum of the rows of A, dy^T.
KERNEL(THREADS) matmul_backward_weight(float* dweight, float* dbias, const act* dy, const act* x, int64_t O, int64_t C, int64_t N) {
    auto add = [=](int64_t o, int64_t c, Run& values, int64_t count) {
        for (int i = 0; i < Fragment::NEIGHBOURS; ++i)
            if (i < count) dweight[o * C + c + i] += values[i];
    };
    multiply<false, false>({dy, O}, {x, C}, O, C, N, add, AddRowSums{dbias});
}

// parts (K, O * C + O): dweight and dbias of each part of the rows.
KERNEL(THREADS) matmul_backward_weight_parts(float* parts, const act* dy, const act* x, int64_t O, int64_t C, int64_t N) {
    float* own = parts + blockIdx.z * (O * C + O);
    auto set = [=](int64_t o, int64_t c, Run& values, int64_t count) {
        for (int i = 0; i < Fragment::NEIGHBOURS; ++i)
            if (i < count) own[o * C + c + i] = values[i];
    };
    multiply<false, false>({dy, O}, {x, C}, O, C, N, set, SetRowSums{own + O * C});
}

constexpr int THREADS_ADDING = 256;

KERNEL(THREADS_ADDING) add_parts(float* dweight, float* dbias, const float* parts, int64_t O, int64_t C, int64_t K) {
    const int64_t i = int64_t{blockIdx.x} * THREADS_ADDING + threadIdx.x, size = O * C + O;
    float* target = i < O * C ? dweight + i : dbias + (i - O * C);
    if (i >= size || (i >= O * C && !dbias)) return;
    float sum = 0.0f;
    for (int64_t k = 0; k < K; ++k) sum += parts[k * size + i];
    *target += sum;
}

// decode_blocks: one new token for each of N sequences through all blocks of a GPT-2 and its last norm, in one launch:
//   x = x + projection(attention(qkv(attention_norm(x))));  x = x + mlp_out(activation(mlp_in(mlp_norm(x))))
// for each of L blocks, then y = final norm of x with gamma and beta. Formulas as in layernorm.hip, matmul.hip and
// attention.hip (attention_decode); activation: 0 GELU, 1 ReLU, 2 ReLU^2. y, x (N, C) row-major, bf16; sums in f32.
// matrices[l]: weights (out, in) of qkv, projection, mlp_in, mlp_out. vectors[l]: gamma, beta of attention_norm; bias of
// qkv, of projection; gamma, beta of mlp_norm; bias of mlp_in, of mlp_out. cache[l]: keys and values (N, H, T, D). The
// MLP has F = (M - 4 C^2) / 2 C channels. exchange (K, 2): slots of simt/exchange.h, the last one the number of earlier launches.
//
// One sequence's time is that of launches, not of bytes, if each op is a launch. So all blocks stay, and hand each other
// the outputs of a layer. Each computes as many outputs of every layer. Weights do not depend on the inputs: they are
// loaded into registers one layer ahead. A wave has a range of K, and multiplies eight outputs by up to eight sequences.
// Grid C / 8, or a divisor of it, all resident. Minimum traffic: L*M*sizeof(act) bytes.
#include "gpu/simt/cached_attention.h"
#include "gpu/simt/exchange.h"
#include "gpu/simt/reduce.h"

constexpr int WAVES = DECODE_BLOCKS_THREADS / WAVE, OUTPUTS = 8, UNIT = 32;  // of an mma: its outputs; columns of two
constexpr int PADDING = 32;                                    // of rows in shared memory, against bank conflicts

struct Statistics {
    float mean, rstd;
};

struct Shared {
    act x[MOST_ROWS][MOST_DECODE_CHANNELS + PADDING];
    act inputs[MOST_ROWS][MOST_DECODE_HIDDEN + PADDING];  // of projection and of mlp_out
    act parameters[2][9 * MOST_DECODE_CHANNELS + MOST_DECODE_HIDDEN];  // vectors of this block and of the next
    float partials[WAVES * MOST_ROWS * DECODE_HELD * OUTPUTS];         // sums over each wave's range of K
    Softmaxes<DECODE_BLOCKS_THREADS> softmaxes;
    act query[MOST_CHANNELS], attended[MOST_CHANNELS];
    Statistics statistics[MOST_ROWS];
};
static_assert(sizeof(Shared) <= DECODE_SHARED_BYTES, "");

// The part of a linear layer that this block computes: `outputs` of them, OUTPUTS at once. A wave has `units` times UNIT
// of the columns.
struct Share {
    const act* weight;
    int columns, outputs, first, units;
    DEVICE_MEMBER Share(const act* layer, int64_t all_outputs, int64_t all_columns) {
        weight = layer;
        columns = static_cast<int>(all_columns);
        outputs = static_cast<int>(all_outputs) / gridDim.x;
        first = blockIdx.x * outputs;
        units = (columns + WAVES * UNIT - 1) / (WAVES * UNIT);
        // hidden from the optimiser, which would compute the addresses of all layers before the first block
        asm volatile("" : "+r"(units), "+r"(columns), "+r"(first));
    }
    DEVICE_MEMBER int column(int unit) const {
        return (threadIdx.x / WAVE * units + unit) * UNIT + threadIdx.x % 4 * WIDTH;
    }
};

// sums (sequences x outputs) += x (sequences x 16) * weights (outputs x 16)^T. Lane l has four numbers of the sequence
// l / 4 and of the output l / 4, and the sums of sequence l / 4 and outputs l % 4 * 2 and one more. Which columns the
// numbers are from does not matter, as long as both operands have the same. PTX ISA, "mma.m16n8k16".
DEVICE void multiply_add(float (&sums)[4], uint32_t x0, uint32_t x1, uint32_t weights0, uint32_t weights1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(x0), "r"(0), "r"(x1), "r"(weights0), "r"(weights1));
}

// A thread's weights of a layer: vectors of all units of an output, then of the next output.
struct Held {
    Vector weights[DECODE_HELD];

    struct Place {
        int output, unit;
        DEVICE_MEMBER void advance(const Share& share) {
            const bool is_last = ++unit == share.units;
            unit = is_last ? 0 : unit;
            output += is_last ? OUTPUTS : 0;
        }
    };

    // Starts the loads. They are in this place, because a volatile load does not move to where its value is used.
    static DEVICE_MEMBER Held fetch(const Share& share) {
        Held held;  // what is not loaded stays undefined, so that no register keeps an earlier layer's weights
        const act* own = share.weight + (share.first + threadIdx.x % WAVE / 4) * share.columns;
        Place place = {0, 0};
#pragma unroll
        for (int i = 0; i < DECODE_HELD; ++i) {
            const int column = share.column(place.unit);
            uint32_t* word = held.weights[i].word;
            if (place.output < share.outputs && column < share.columns)
                asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                             : "l"(own + place.output * share.columns + column));
            place.advance(share);
        }
        return held;
    }

    // partials[wave, n, output] = this wave's part of the sums. input(n, column): WIDTH neighbours of an input.
    template <class Input>
    DEVICE_MEMBER void multiply(float* partials, const Share& share, int N, const Input& input) const {
        const int n = threadIdx.x % WAVE / 4;
        float* own = partials + (threadIdx.x / WAVE * N + n) * share.outputs + threadIdx.x % 4 * 2;
        float sums[4] = {};
        Place place = {0, 0};
#pragma unroll
        for (int i = 0; i < DECODE_HELD; ++i) {
            if (place.output >= share.outputs) break;
            const int column = share.column(place.unit);
            if (column < share.columns) {
                const Vector x = n < N ? input(n, column) : Vector{};
                multiply_add(sums, x.word[0], x.word[1], weights[i].word[0], weights[i].word[1]);
                multiply_add(sums, x.word[2], x.word[3], weights[i].word[2], weights[i].word[3]);
            }
            if (place.unit + 1 == share.units) {
                if (n < N) {
                    own[place.output] = sums[0];
                    own[place.output + 1] = sums[1];
                }
                for (float& sum : sums) sum = 0.0f;
            }
            place.advance(share);
        }
    }
};

// Hands out finish(n, output, sum) for this block's outputs of every sequence. slots: of (N, all_outputs).
template <class Finish>
DEVICE void hand_out_sums(Slot* slots, uint32_t tag, const float* partials, const Share& share, int64_t all_outputs,
                          int N, const Finish& finish) {
    const int pairs = share.outputs / 2;
    for (int i = threadIdx.x; i < N * pairs; i += DECODE_BLOCKS_THREADS) {
        const int n = i / pairs, output = i % pairs * 2;
        float sums[2] = {}, others[2];
        for (int wave = 0; wave < WAVES; ++wave) {
            load(others, partials + (wave * N + n) * share.outputs + output);
            for (int e = 0; e < 2; ++e) sums[e] += others[e];
        }
        for (int e = 0; e < 2; ++e) sums[e] = finish(n, share.first + output + e, sums[e]);
        hand_out(slots + (n * all_outputs + share.first + output) / 2, bf16_pair(sums[0], sums[1]), tag);
    }
}

// Fills N rows of C from slots, and waits for all threads.
template <int ROW>
DEVICE void receive_rows(act (&rows)[MOST_ROWS][ROW], const Slot* slots, int N, int64_t C, uint32_t tag) {
    const int pairs = static_cast<int>(C / 2);
    receive(slots, N * pairs, tag, [&](int i, uint32_t pair) {
        reinterpret_cast<uint32_t*>(rows[i / pairs])[i % pairs] = pair;
    });
    __syncthreads();
}

// Mean and reciprocal standard deviation of each row of x, a wave for a row.
DEVICE void summarize(Shared& shared, int N, int64_t C, float epsilon) {
    for (int n = threadIdx.x / WAVE; n < N; n += WAVES) {
        float total = 0.0f, squares = 0.0f, values[WIDTH];
        for (int64_t c = threadIdx.x % WAVE * WIDTH; c < C; c += WAVE * WIDTH) {
            load(values, shared.x[n] + c);
            for (float value : values) total += value;
        }
        const float mean = wave_sum(total) / C;
        for (int64_t c = threadIdx.x % WAVE * WIDTH; c < C; c += WAVE * WIDTH) {
            load(values, shared.x[n] + c);
            for (float value : values) squares += (value - mean) * (value - mean);
        }
        const float rstd = 1.0f / sqrtf(wave_sum(squares) / C + epsilon);
        if (threadIdx.x % WAVE == 0) shared.statistics[n] = {mean, rstd};
    }
    __syncthreads();
}

// WIDTH neighbours of the norm of x.
DEVICE Vector normalized(const Shared& shared, const act* gamma, const act* beta, int n, int64_t column) {
    const Statistics of = shared.statistics[n];
    float values[WIDTH], scales[WIDTH], shifts[WIDTH];
    Vector result;
    load(values, shared.x[n] + column);
    load(scales, gamma + column);
    load(shifts, beta + column);
    for (int i = 0; i < WIDTH; ++i) values[i] = (values[i] - of.mean) * of.rstd * scales[i] + shifts[i];
    store(reinterpret_cast<act*>(&result), values);
    return result;
}

// A model's sizes, and one block's keys and values.
struct Heads {
    int64_t N, C, H, T, D;
    act *keys, *values;
    const int32_t* positions;

    DEVICE_MEMBER int64_t length(int64_t n) const { return positions[n] < T ? positions[n] + 1 : T; }

    // Brings the cached rows of this block's heads into L2.
    DEVICE_MEMBER void prefetch() const {
        constexpr int LINE = 64;  // elements
        for (int64_t head = blockIdx.x; head < N * H; head += gridDim.x)
            for (int64_t at = threadIdx.x * LINE; at < length(head / H) * D; at += DECODE_BLOCKS_THREADS * LINE)
                for (const act* cached : {keys, values})
                    asm volatile("prefetch.global.L2 [%0];" ::"l"(cached + head * T * D + at));
    }

    // Attention of the heads that this block has: from slots (N, 3, C) of qkv to slots (N, C).
    DEVICE_MEMBER void attend(Shared& shared, Slot* attended, const Slot* qkv, uint32_t tag) const {
        const int pairs = static_cast<int>(D / 2);
        for (int64_t head = blockIdx.x; head < N * H; head += gridDim.x) {
            const int64_t n = head / H, first = (head % H) * D, row = positions[n] % T;
            act *own_keys = keys + head * T * D, *own_values = values + head * T * D;
            act* const targets[3] = {shared.query, own_keys + row * D, own_values + row * D};
            for (int part = 0; part < 3; ++part)
                receive(qkv + (n * 3 * C + part * C + first) / 2, pairs, tag, [&](int i, uint32_t pair) {
                    reinterpret_cast<uint32_t*>(targets[part])[i] = pair;
                });
            __syncthreads();
            decode<true>(shared.softmaxes, shared.attended, shared.query, own_keys, own_values, length(n), D);
            __syncthreads();
            if (threadIdx.x < pairs) {
                const uint32_t pair = reinterpret_cast<const uint32_t*>(shared.attended)[threadIdx.x];
                hand_out(attended + (n * C + first) / 2 + threadIdx.x, pair, tag);
            }
        }
    }
};

DEVICE float activated(float hidden, int32_t activation) {
    return activation == 0 ? gelu(hidden).value : activation == 1 ? relu(hidden).value : relu2(hidden).value;
}

KERNEL(DECODE_BLOCKS_THREADS)
decode_blocks(act* y, act* cache, int32_t* exchange, const act* x, const act* matrices, const act* vectors,
              const act* gamma, const act* beta, const int32_t* positions, int64_t N, int64_t C, int64_t L, int64_t H,
              int64_t T, int64_t D, int64_t K, int64_t M, int64_t W, float epsilon, int32_t activation) {
    extern __shared__ int4 memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    const int64_t F = (M - 4 * C * C) / (2 * C), keys = N * H * T * D;
    const int rows = static_cast<int>(N);
    Slot* const slots = reinterpret_cast<Slot*>(exchange);
    Slot *const of_qkv = slots, *const of_heads = of_qkv + N * 3 * C / 2, *const of_middle = of_heads + N * C / 2,
                *const of_hidden = of_middle + N * C / 2, *const of_x = of_hidden + N * F / 2;
    const uint32_t launches = *reinterpret_cast<volatile uint32_t*>(slots + K - 1);
    const auto copy_vectors = [&](int64_t l) {
        for (int64_t at = threadIdx.x * WIDTH; at < W; at += DECODE_BLOCKS_THREADS * WIDTH)
            copy_chunk(shared.parameters[l % 2] + at, vectors + l * W + at, true);
        copies_commit();
    };
    const auto residual_sum = [&](const act* bias) {
        return [&, bias](int n, int output, float sum) { return widen(shared.x[n][output]) + sum + widen(bias[output]); };
    };
    Held qkv = Held::fetch({matrices, 3 * C, C});
    copy_vectors(0);
    for (int64_t at = threadIdx.x * WIDTH; at < N * C; at += DECODE_BLOCKS_THREADS * WIDTH)
        *reinterpret_cast<Vector*>(shared.x[at / C] + at % C) = *reinterpret_cast<const Vector*>(x + at);

    for (int64_t l = 0; l < L; ++l) {
        const act* weights = matrices + l * M;
        const Share to_qkv = {weights, 3 * C, C}, to_projection = {weights + 3 * C * C, C, C};
        const Share to_hidden = {weights + 4 * C * C, F, C}, from_hidden = {weights + (4 * C + F) * C, C, F};
        const act *attention_norm = shared.parameters[l % 2], *qkv_bias = attention_norm + 2 * C;
        const act *projection_bias = qkv_bias + 3 * C, *mlp_norm = projection_bias + C, *mlp_in_bias = mlp_norm + 2 * C;
        const act* mlp_out_bias = mlp_in_bias + F;
        const Heads heads = {N, C, H, T, D, cache + 2 * l * keys, cache + (2 * l + 1) * keys, positions};
        const uint32_t tag = launches * static_cast<uint32_t>(L) + static_cast<uint32_t>(l) + 1;
        const auto multiply_norm = [&](const Held& held, const Share& share, const act* norm) {
            summarize(shared, rows, C, epsilon);
            held.multiply(shared.partials, share, rows,
                          [&](int n, int column) { return normalized(shared, norm, norm + C, n, column); });
            __syncthreads();
        };
        const auto multiply_inputs = [&](const Held& held, const Share& share) {
            held.multiply(shared.partials, share, rows, [&](int n, int column) {
                return *reinterpret_cast<const Vector*>(shared.inputs[n] + column);
            });
            __syncthreads();
        };

        heads.prefetch();
        const Held projection = Held::fetch(to_projection);
        if (l > 0) receive_rows(shared.x, of_x, rows, C, tag - 1);
        copies_wait<0>();
        __syncthreads();
        multiply_norm(qkv, to_qkv, attention_norm);
        hand_out_sums(of_qkv, tag, shared.partials, to_qkv, 3 * C, rows,
                      [&](int, int output, float sum) { return sum + widen(qkv_bias[output]); });
        if (l + 1 < L) copy_vectors(l + 1);
        heads.attend(shared, of_heads, of_qkv, tag);
        const Held mlp_in = Held::fetch(to_hidden);

        receive_rows(shared.inputs, of_heads, rows, C, tag);
        multiply_inputs(projection, to_projection);
        hand_out_sums(of_middle, tag, shared.partials, to_projection, C, rows, residual_sum(projection_bias));
        const Held mlp_out = Held::fetch(from_hidden);

        receive_rows(shared.x, of_middle, rows, C, tag);
        multiply_norm(mlp_in, to_hidden, mlp_norm);
        hand_out_sums(of_hidden, tag, shared.partials, to_hidden, F, rows, [&](int, int output, float sum) {
            return activated(sum + widen(mlp_in_bias[output]), activation);
        });
        if (l + 1 < L) qkv = Held::fetch({weights + M, 3 * C, C});

        receive_rows(shared.inputs, of_hidden, rows, F, tag);
        multiply_inputs(mlp_out, from_hidden);
        hand_out_sums(of_x, tag, shared.partials, from_hidden, C, rows, residual_sum(mlp_out_bias));
    }
    if (blockIdx.x > 0) return;
    receive_rows(shared.x, of_x, rows, C, (launches + 1) * static_cast<uint32_t>(L));
    summarize(shared, rows, C, epsilon);
    for (int64_t at = threadIdx.x * WIDTH; at < N * C; at += DECODE_BLOCKS_THREADS * WIDTH)
        *reinterpret_cast<Vector*>(y + at) = normalized(shared, gamma, beta, static_cast<int>(at / C), at % C);
    if (threadIdx.x == 0) *reinterpret_cast<volatile uint32_t*>(slots + K - 1) = launches + 1;
}

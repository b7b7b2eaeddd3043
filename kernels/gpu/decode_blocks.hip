// decode_blocks: one new token for each of N sequences through all blocks of a GPT-2 and its last norm, in one launch:
//   x = x + projection(attention(qkv(attention_norm(x))));  x = x + mlp_out(activation(mlp_in(mlp_norm(x))))
// for each of L blocks, then y = final norm of x with gamma and beta. Formulas as in layernorm.hip, matmul.hip and
// attention.hip (attention_decode); activation: 0 GELU, 1 ReLU, 2 ReLU^2. y, x (N, C) row-major, bf16; sums in f32.
// matrices[l]: weights (out, in) of qkv, projection, mlp_in, mlp_out. vectors[l]: gamma, beta of attention_norm; bias of
// qkv, of projection; gamma, beta of mlp_norm; bias of mlp_in, of mlp_out. cache[l]: keys and values (N, H, T, D).
// positions[n] is below T. The MLP has F = (M - 4 C^2) / 2 C channels. exchange (K, 2): slots of simt/exchange.h, the last
// one the number of earlier launches.
//
// If each op is a launch, the time for few sequences is that of launches, not of bytes. So all blocks stay, and hand each
// other the outputs of a layer. Each computes as many outputs of every layer. Weights do not depend on the inputs: they
// are loaded into registers one layer ahead. A wave has a range of K, and multiplies eight outputs by up to eight
// sequences. Grid C / 8, all resident. Macros: SEQUENCES, CHANNELS, HIDDEN and HEAD_CHANNELS are N, C, F and D, so that
// every loop has a known length and weights stay in registers. Minimum traffic: L*M*sizeof(act) bytes.
#include "gpu/simt/cached_attention.h"
#include "gpu/simt/exchange.h"
#include "gpu/simt/reduce.h"

constexpr int BLOCKS = CHANNELS / 8, WAVES = DECODE_BLOCKS_THREADS / WAVE;
constexpr int OUTPUTS = 8, UNIT = 32;  // outputs of an mma; columns that a wave multiplies at once, by two of them
constexpr int PADDING = 32;            // of rows in shared memory, against bank conflicts

struct Statistics {
    float mean, rstd;
};

struct Shared {
    act x[SEQUENCES][CHANNELS + PADDING];
    act inputs[SEQUENCES][HIDDEN + PADDING];            // of projection and of mlp_out
    act parameters[2][9 * CHANNELS + HIDDEN];           // vectors of this block and of the next
    float partials[WAVES][SEQUENCES][8 * HIDDEN / CHANNELS > 24 ? 8 * HIDDEN / CHANNELS : 24];
    WaveSoftmaxes<DECODE_BLOCKS_THREADS> softmaxes;
    act qkv[3][HEAD_CHANNELS];  // of the head that is attended to
    Statistics statistics[SEQUENCES];
    int32_t positions[SEQUENCES];
};
static_assert(sizeof(Shared) <= DECODE_SHARED_BYTES, "");

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

// This block's part of a linear layer with ALL outputs: the same number of outputs as every block, from `first` on.
// A thread holds the weights of its wave's columns.
template <int ALL, int COLUMNS>
struct Part {
    static constexpr int OWN = ALL / BLOCKS, UNITS = (COLUMNS + WAVES * UNIT - 1) / (WAVES * UNIT);
    Vector weights[OWN / OUTPUTS][UNITS];

    static DEVICE_MEMBER int first() { return blockIdx.x * OWN; }
    static DEVICE_MEMBER int column(int unit) {
        return (threadIdx.x / WAVE * UNITS + unit) * UNIT + threadIdx.x % 4 * WIDTH;
    }
    static DEVICE_MEMBER bool has(int unit) { return COLUMNS % (WAVES * UNIT * UNITS) == 0 || column(unit) < COLUMNS; }

    // Starts the loads. They are in this place, because a volatile load does not move to where its value is used.
    DEVICE_MEMBER void fetch(const act* weight) {
        const act* own = weight + (first() + threadIdx.x % WAVE / 4) * COLUMNS + column(0);
#pragma unroll
        for (int group = 0; group < OWN / OUTPUTS; ++group)
#pragma unroll
            for (int unit = 0; unit < UNITS; ++unit) {
                weights[group][unit] = {};  // so that no earlier block's weights stay in registers
                uint32_t* word = weights[group][unit].word;
                if (has(unit))
                    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                                 : "l"(own + group * OUTPUTS * COLUMNS + unit * UNIT));
            }
    }

    // partials[wave][n][output] = this wave's part of the sums. input(n, column): WIDTH neighbours of an input.
    template <class Input>
    DEVICE_MEMBER void multiply(Shared& shared, const Input& input) const {
        const int n = threadIdx.x % WAVE / 4;
        float sums[OWN / OUTPUTS][4] = {};
#pragma unroll
        for (int unit = 0; unit < UNITS; ++unit) {
            if (!has(unit)) continue;
            const Vector x = n < SEQUENCES ? input(n, column(unit)) : Vector{};
#pragma unroll
            for (int group = 0; group < OWN / OUTPUTS; ++group) {
                const uint32_t* word = weights[group][unit].word;
                multiply_add(sums[group], x.word[0], x.word[1], word[0], word[1]);
                multiply_add(sums[group], x.word[2], x.word[3], word[2], word[3]);
            }
        }
        if (n < SEQUENCES)
#pragma unroll
            for (int group = 0; group < OWN / OUTPUTS; ++group)
                for (int e = 0; e < 2; ++e)
                    shared.partials[threadIdx.x / WAVE][n][group * OUTPUTS + threadIdx.x % 4 * 2 + e] = sums[group][e];
        __syncthreads();
    }

    // Hands out finish(n, output, sum) for this block's outputs of every sequence. slots: of (N, ALL).
    template <class Finish>
    static DEVICE_MEMBER void hand_out_sums(Slot* slots, uint32_t tag, const Shared& shared, const Finish& finish) {
        constexpr int PAIRS = OWN / 2;
        for (int i = threadIdx.x; i < SEQUENCES * PAIRS; i += DECODE_BLOCKS_THREADS) {
            const int n = i / PAIRS, output = i % PAIRS * 2;
            float sums[2] = {}, others[2];
#pragma unroll
            for (int wave = 0; wave < WAVES; ++wave) {
                load(others, shared.partials[wave][n] + output);
                for (int e = 0; e < 2; ++e) sums[e] += others[e];
            }
            for (int e = 0; e < 2; ++e) sums[e] = finish(n, first() + output + e, sums[e]);
            hand_out(slots + (n * ALL + first() + output) / 2, bf16_pair(sums[0], sums[1]), tag);
        }
    }
};

// Fills rows from the slots of (N, COLUMNS), and waits for all threads.
template <int COLUMNS, int ROW>
DEVICE void receive_rows(act (&rows)[SEQUENCES][ROW], const Slot* slots, uint32_t tag) {
    constexpr int PAIRS = COLUMNS / 2;
    receive<DECODE_BLOCKS_THREADS, SEQUENCES * PAIRS>(slots, tag, [&](int i, uint32_t pair) {
        reinterpret_cast<uint32_t*>(rows[i / PAIRS])[i % PAIRS] = pair;
    });
    __syncthreads();
}

// Mean and reciprocal standard deviation of each row of x, a wave for a row.
DEVICE void summarize(Shared& shared, float epsilon) {
    constexpr int EACH = (CHANNELS + WAVE * WIDTH - 1) / (WAVE * WIDTH);
    const int n = threadIdx.x / WAVE, lane = threadIdx.x % WAVE;
    if (n < SEQUENCES) {
        float total = 0.0f, squares = 0.0f, values[EACH][WIDTH];
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            const int c = (i * WAVE + lane) * WIDTH;
            if (c >= CHANNELS) continue;
            load(values[i], shared.x[n] + c);
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

// WIDTH neighbours of the norm of x.
DEVICE Vector normalized(const Shared& shared, const act* gamma, const act* beta, int n, int column) {
    const Statistics of = shared.statistics[n];
    float values[WIDTH], scales[WIDTH], shifts[WIDTH];
    load(values, shared.x[n] + column);
    load(scales, gamma + column);
    load(shifts, beta + column);
    for (int i = 0; i < WIDTH; ++i) values[i] = (values[i] - of.mean) * of.rstd * scales[i] + shifts[i];
    return rounded(values);
}

// Keys and values (N, H, T, D) of one block of the model. A team has WIDTH channels of a key in each lane.
struct Heads {
    static constexpr int EACH = CHANNELS / HEAD_CHANNELS, ALL = SEQUENCES * EACH;  // heads of a sequence; of all
    static constexpr int LANES = HEAD_CHANNELS / WIDTH, TEAMS = DECODE_BLOCKS_THREADS / LANES;
    static constexpr int TOGETHER = 4;  // keys that a team visits in a turn
    int64_t T;
    act *keys, *values;

    // The cached rows that a team visits in a turn.
    struct Rows {
        Vector keys[TOGETHER], values[TOGETHER];
    };

    static DEVICE_MEMBER int row(int first, int turn) { return first + turn * TEAMS + threadIdx.x / LANES; }
    static DEVICE_MEMBER int channel() { return threadIdx.x % LANES * WIDTH; }

    // Brings the cached rows of this block's heads into L2.
    DEVICE_MEMBER void prefetch(const Shared& shared) const {
        constexpr int LINE = 64;  // elements
        for (int head = blockIdx.x; head < ALL; head += BLOCKS) {
            const int elements = shared.positions[head / EACH] * HEAD_CHANNELS;
            for (int at = threadIdx.x * LINE; at < elements; at += DECODE_BLOCKS_THREADS * LINE)
                for (const act* cached : {keys, values})
                    asm volatile("prefetch.global.L2 [%0];" ::"l"(cached + head * T * HEAD_CHANNELS + at));
        }
    }

    DEVICE_MEMBER void load_rows(Rows& rows, int head, int first, int count) const {
        const int64_t offset = head * T * HEAD_CHANNELS + channel();
#pragma unroll
        for (int turn = 0; turn < TOGETHER; ++turn) {
            const int at = row(first, turn);
            if (at >= count) continue;
            rows.keys[turn] = *reinterpret_cast<const Vector*>(keys + offset + at * HEAD_CHANNELS);
            rows.values[turn] = *reinterpret_cast<const Vector*>(values + offset + at * HEAD_CHANNELS);
        }
    }

    // Attention of the heads that this block has: from slots (N, 3, C) of qkv to slots (N, C).
    DEVICE_MEMBER void attend(Shared& shared, Slot* attended, const Slot* qkv, uint32_t tag) const {
        for (int head = blockIdx.x; head < ALL; head += BLOCKS) {
            const int n = head / EACH, first = head % EACH * HEAD_CHANNELS, position = shared.positions[n];
            Rows rows;
            load_rows(rows, head, 0, position);  // earlier tokens', which need not wait for this one's query
            receive_head(shared, head, qkv + (n * 3 * CHANNELS + first) / 2, tag);
            TeamSoftmax<LANES> softmax;
            float query[WIDTH];
            load(query, shared.qkv[0] + channel());
            for (int begin = 0; begin <= position; begin += TOGETHER * TEAMS) {  // all lanes, as they exchange sums
                if (begin > 0) load_rows(rows, head, begin, position);
                visit(softmax, shared, rows, query, begin, position);
            }
            shared.softmaxes.store(softmax);
            constexpr int PAIRS = HEAD_CHANNELS / 2;
            if (threadIdx.x < PAIRS) {
                const int d = threadIdx.x * 2;
                const uint32_t pair = bf16_pair(shared.softmaxes.channel(d), shared.softmaxes.channel(d + 1));
                hand_out(attended + (n * CHANNELS + first + d) / 2, pair, tag);
            }
            __syncthreads();
        }
    }

    // Takes this token's query, key and value of a head, and adds key and value to the cache.
    DEVICE_MEMBER void receive_head(Shared& shared, int head, const Slot* qkv, uint32_t tag) const {
        constexpr int PAIRS = HEAD_CHANNELS / 2;
        const int part = threadIdx.x / PAIRS, i = threadIdx.x % PAIRS;
        if (part < 3) {
            const uint32_t pair = receive_one(qkv + part * CHANNELS / 2 + i, tag);
            reinterpret_cast<uint32_t*>(shared.qkv[part])[i] = pair;
            act* cached = part == 1 ? keys : values;
            const int64_t own = (head * T + shared.positions[head / EACH]) * HEAD_CHANNELS;
            if (part > 0) reinterpret_cast<uint32_t*>(cached + own)[i] = pair;
        }
        __syncthreads();
    }

    static DEVICE_MEMBER void visit(TeamSoftmax<LANES>& softmax, const Shared& shared, const Rows& rows,
                                    const float (&query)[WIDTH], int begin, int position) {
        const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_CHANNELS));
        float scores[TOGETHER], raised = softmax.maximum, values[WIDTH];
        const auto load_row = [&](Vector vector, int part, int turn) {
            if (row(begin, turn) == position) vector = *reinterpret_cast<const Vector*>(shared.qkv[part] + channel());
            widen(values, vector);
        };
#pragma unroll
        for (int turn = 0; turn < TOGETHER; ++turn) {
            load_row(rows.keys[turn], 1, turn);
            scores[turn] = softmax.product(query, values) * scale;
            if (row(begin, turn) > position) scores[turn] = MASKED;
            raised = fmaxf(raised, scores[turn]);
        }
        softmax.raise_to(raised);
#pragma unroll
        for (int turn = 0; turn < TOGETHER; ++turn) {
            load_row(rows.values[turn], 2, turn);
            if (scores[turn] > MASKED) softmax.add(scores[turn], values);
        }
    }
};

DEVICE float activated(float hidden, int32_t activation) {
    return activation == 0 ? gelu(hidden).value : activation == 1 ? relu(hidden).value : relu2(hidden).value;
}

KERNEL(DECODE_BLOCKS_THREADS)
decode_blocks(act* y, act* cache, int32_t* exchange, const act* x, const act* matrices, const act* vectors,
              const act* gamma, const act* beta, const int32_t* positions, int64_t /*N*/, int64_t /*C*/, int64_t L,
              int64_t /*H*/, int64_t T, int64_t /*D*/, int64_t K, int64_t M, int64_t W, float epsilon,
              int32_t activation) {
    constexpr int N = SEQUENCES, C = CHANNELS, F = HIDDEN;
    extern __shared__ int4 memory[];
    Shared& shared = *reinterpret_cast<Shared*>(memory);
    Slot* const slots = reinterpret_cast<Slot*>(exchange);
    Slot *const of_qkv = slots, *const of_heads = of_qkv + N * 3 * C / 2, *const of_middle = of_heads + N * C / 2,
                *const of_hidden = of_middle + N * C / 2, *const of_x = of_hidden + N * F / 2;
    const uint32_t launches = *reinterpret_cast<volatile uint32_t*>(slots + K - 1);
    const auto copy_vectors = [&](int64_t l, int64_t from) {
        for (int at = threadIdx.x * WIDTH; at < 9 * C + F; at += DECODE_BLOCKS_THREADS * WIDTH)
            copy_chunk(shared.parameters[l % 2] + at, vectors + from * W + at, true);
        copies_commit();
    };
    const auto residual_sum = [&](const act* bias) {
        return [&, bias](int n, int output, float sum) { return widen(shared.x[n][output]) + sum + widen(bias[output]); };
    };
    const auto of_norm = [&](const act* norm) {
        return [&, norm](int n, int column) { return normalized(shared, norm, norm + C, n, column); };
    };
    const auto of_inputs = [&](int n, int column) {
        return *reinterpret_cast<const Vector*>(shared.inputs[n] + column);
    };
    const auto heads_of = [&](int64_t l) {
        const int64_t each = Heads::ALL * T * HEAD_CHANNELS;
        return Heads{T, cache + 2 * l * each, cache + (2 * l + 1) * each};
    };
    Part<3 * C, C> qkv;
    qkv.fetch(matrices);
    if (threadIdx.x < N) shared.positions[threadIdx.x] = positions[threadIdx.x];
    copy_vectors(0, 0);
    for (int at = threadIdx.x * WIDTH; at < N * C; at += DECODE_BLOCKS_THREADS * WIDTH)
        *reinterpret_cast<Vector*>(shared.x[at / C] + at % C) = *reinterpret_cast<const Vector*>(x + at);

#pragma unroll 1
    for (int64_t l = 0; l < L; ++l) {
        const int64_t next = l + 1 < L ? l + 1 : l;  // whose first weights, vectors and cache are fetched; no branch
        const act *weights = matrices + l * M, *attention_norm = shared.parameters[l % 2];
        const act *qkv_bias = attention_norm + 2 * C, *projection_bias = qkv_bias + 3 * C;
        const act *mlp_norm = projection_bias + C, *mlp_in_bias = mlp_norm + 2 * C, *mlp_out_bias = mlp_in_bias + F;
        const Heads heads = heads_of(l);
        const uint32_t tag = launches * static_cast<uint32_t>(L) + static_cast<uint32_t>(l) + 1;
        Part<C, C> projection;
        Part<F, C> mlp_in;
        Part<C, F> mlp_out;

        projection.fetch(weights + 3 * C * C);
        if (l > 0) receive_rows<C>(shared.x, of_x, tag - 1);
        copies_wait<0>();
        __syncthreads();
        summarize(shared, epsilon);
        qkv.multiply(shared, of_norm(attention_norm));
        qkv.hand_out_sums(of_qkv, tag, shared,
                          [&](int, int output, float sum) { return sum + widen(qkv_bias[output]); });
        copy_vectors(l + 1, next);
        heads.attend(shared, of_heads, of_qkv, tag);
        heads_of(next).prefetch(shared);
        mlp_in.fetch(weights + 4 * C * C);

        receive_rows<C>(shared.inputs, of_heads, tag);
        projection.multiply(shared, of_inputs);
        projection.hand_out_sums(of_middle, tag, shared, residual_sum(projection_bias));
        mlp_out.fetch(weights + (4 * C + F) * C);

        receive_rows<C>(shared.x, of_middle, tag);
        summarize(shared, epsilon);
        mlp_in.multiply(shared, of_norm(mlp_norm));
        mlp_in.hand_out_sums(of_hidden, tag, shared, [&](int, int output, float sum) {
            return activated(sum + widen(mlp_in_bias[output]), activation);
        });
        qkv.fetch(matrices + next * M);

        receive_rows<F>(shared.inputs, of_hidden, tag);
        mlp_out.multiply(shared, of_inputs);
        mlp_out.hand_out_sums(of_x, tag, shared, residual_sum(mlp_out_bias));
    }
    if (blockIdx.x > 0) return;
    receive_rows<C>(shared.x, of_x, (launches + 1) * static_cast<uint32_t>(L));
    summarize(shared, epsilon);
    for (int at = threadIdx.x * WIDTH; at < N * C; at += DECODE_BLOCKS_THREADS * WIDTH)
        *reinterpret_cast<Vector*>(y + at) = normalized(shared, gamma, beta, at / C, at % C);
    if (threadIdx.x == 0) *reinterpret_cast<volatile uint32_t*>(slots + K - 1) = launches + 1;
}

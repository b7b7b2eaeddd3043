// attention_forward in bf16 by AMD's matrix units: formulas, layouts and traffic as in attention.hip; sums in f32.
//
// Scores are computed transposed, S^T = K Q^T: lane l then has scores of one query, l % 16, and 8 neighbouring keys for
// each segment (amd/unit.h). These are the k of an operand of the next product, Y^T = V^T P^T, so probabilities go from
// sums to operands inside a lane, and maximum and sum of a query are one number per lane. Values are transposed once,
// on their way into shared memory.
// A block owns ATTENTION_QUERIES queries of a head, QUERY_TILES x 16 per wave, and visits tiles of KEYS keys, of which
// the next one is fetched into registers while this one is multiplied. The softmax is online (Milakov & Gimelshein 2018,
// arXiv:1805.02867). HEAD_CHANNELS is D rounded up to 32, 64 or 128. Grid B*H*ceil(S / queries of a block), blocks with
// the most keys to visit first.
#include "gpu/amd/operand_loader.h"
#include "formulas.h"
#ifndef HEAD_CHANNELS
#define HEAD_CHANNELS 64
#endif

constexpr float MASKED = -1e30f, LOG2_E = 1.44269504f;
constexpr int ATTENTION_THREADS = MMA_WAVES * WAVE;
constexpr int QUERY_TILES = ATTENTION_QUERIES / (16 * MMA_WAVES);
constexpr int KEYS = HEAD_CHANNELS == 128 ? 32 : HEAD_CHANNELS == 64 || WAVE == 32 ? 64 : 128;  // of a tile
constexpr int STEPS = HEAD_CHANNELS / Unit::STEP_K, KEY_STEPS = KEYS / Unit::STEP_K;  // of a score, of an output
constexpr int KEY_TILES = KEYS / 16, CHANNEL_TILES = HEAD_CHANNELS / 16, STREAMED = KEYS * HEAD_CHANNELS;
using KeyTile = OperandTile<HEAD_CHANNELS>;
using ValueTile = OperandTile<KEYS>;
using ValueLoader = TransposingLoader<HEAD_CHANNELS, KEYS, true, ATTENTION_THREADS>;

// Keys are rows that follow each other from tile to tile. Chunks from D on are never stored: they stay zero.
struct KeyLoader : RowLoader<KEYS, HEAD_CHANNELS, true, ATTENTION_THREADS> {
    bool inside;
    DEVICE_MEMBER explicit KeyLoader(const Source& given) : RowLoader(given) {
        inside = chunk(threadIdx.x) * WIDTH < static_cast<unsigned>(given.end_k);
        if (!inside)
            for (int e = 0; e < EACH; ++e) offset[e] -= chunk(threadIdx.x) * WIDTH * 2;
    }
    DEVICE_MEMBER void put(bf16* tile) const {
        if (inside) RowLoader::put(tile);
    }
    DEVICE_MEMBER void advance() {
        source.first_row += KEYS;
        base += KEYS * source.matrix.stride * 2;
    }
};

// The operand of 16 queries from `first` on and channels from first_channel on, from global memory; zero from S and D on.
DEVICE Unit::Operand query_operand(const act* q, int64_t stride, int64_t first, int first_channel, int64_t S,
                                   int64_t D) {
    const int64_t query = first + lane_of_wave() % 16;
    const int channel = first_channel + Unit::first_k(lane_of_wave());
    Unit::Operand operand = {};
    if (query >= S) return operand;
    const act* source = q + query * stride + channel;
    if (is_wide(D)) {
        union {
            Chunk chunk[Unit::HELD_K / WIDTH];
            Unit::Operand operand;
        } read = {};
        for (int c = 0; c < Unit::HELD_K / WIDTH; ++c)
            if (channel + c * WIDTH < D) read.chunk[c] = reinterpret_cast<const Chunk*>(source)[c];
        return read.operand;
    }
    for (int k = 0; k < Unit::HELD_K; ++k)
        if (channel + k < D) operand[k] = source[k].bits;
    return operand;
}

// Reduces over the lanes that hold one query, in a fixed order.
template <class Op>
DEVICE float across_query(float value, const Op& op) {
    for (int mask = 16; mask < WAVE; mask *= 2) value = op(value, wave_exchange(value, mask));
    return value;
}

// Leaves out keys that come after a lane's query. ahead: of the tile's first key, compared with the wave's first query.
DEVICE void mask(Unit::Sum (&scores)[QUERY_TILES][KEY_TILES], int ahead) {
    const int lane = lane_of_wave(), first = ahead + lane / 16 * WIDTH - lane % 16;
#pragma unroll
    for (int t = 0; t < QUERY_TILES; ++t)
#pragma unroll
        for (int j = 0; j < KEY_TILES; ++j)
#pragma unroll
            for (int e = 0; e < Unit::SIZE; ++e) {
                const int key = j / TILES * SEGMENT_ROWS + j % TILES * Unit::SIZE + e;
                if (first + key > t * 16) scores[t][j][e] = MASKED;
            }
}

// Makes probabilities of the scores of a query, relative to its new maximum, and scales what was summed up before.
DEVICE void rescale(Unit::Sum (&out)[CHANNEL_TILES], float& maximum, float& sum,
                    Unit::Operand (&probabilities)[KEY_STEPS], const Unit::Sum (&scores)[KEY_TILES], float scale) {
    float largest = MASKED;
#pragma unroll
    for (int j = 0; j < KEY_TILES; ++j)
#pragma unroll
        for (int e = 0; e < Unit::SIZE; ++e) largest = fmaxf(largest, scores[j][e]);
    largest = across_query(largest, [](float a, float b) { return fmaxf(a, b); });
    const float raised = fmaxf(maximum, largest * scale), shrink = quick_exp2(maximum - raised);
    maximum = raised;
    sum *= shrink;
#pragma unroll
    for (int j = 0; j < KEY_STEPS; ++j) {
        uint32_t pairs[WIDTH / 2];
#pragma unroll
        for (int i = 0; i < WIDTH; i += 2) {
            const Unit::Sum& own = scores[j * TILES + i / Unit::SIZE];
            const float first = quick_exp2(own[i % Unit::SIZE] * scale - raised);
            const float second = quick_exp2(own[i % Unit::SIZE + 1] * scale - raised);
            sum += first + second;
            pairs[i / 2] = bf16_pair_of_finite(first, second);
        }
        probabilities[j] = Unit::operand_of(pairs);
    }
#pragma unroll
    for (int c = 0; c < CHANNEL_TILES; ++c) out[c] *= shrink;
}

// Stores the lane's channels of a query times a factor.
DEVICE void store(act* target, const Unit::Sum (&out)[CHANNEL_TILES], float factor, int64_t D) {
#pragma unroll
    for (int c = 0; c < CHANNEL_TILES; c += TILES) {
        const int64_t channel = c * 16 + lane_of_wave() / 16 * WIDTH;
        float values[WIDTH];
        for (int i = 0; i < WIDTH; ++i) values[i] = out[c + i / Unit::SIZE][i % Unit::SIZE] * factor;
        if (channel < D) store_some(target + channel, values, D - channel, is_wide(D));
    }
}

KERNEL(ATTENTION_THREADS)
attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ Vector memory[2 * 2 * STREAMED / WIDTH];
    bf16* tiles = reinterpret_cast<bf16*>(memory);
    const int heads = uniform(B * H), head = blockIdx.x % heads, h = head % uniform(H), b = head / uniform(H);
    const int blocks = uniform((S + ATTENTION_QUERIES - 1) / ATTENTION_QUERIES);
    const int first = (blocks - 1 - static_cast<int>(blockIdx.x) / heads) * ATTENTION_QUERIES;
    const int64_t stride = 3 * H * D;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D;
    const float scale = LOG2_E / sqrtf(static_cast<float>(D));  // scores become powers of 2: exp2 is one instruction
    const int wave_first = first + uniform(threadIdx.x / WAVE) * QUERY_TILES * 16, end = first + ATTENTION_QUERIES;
    const int key_tiles = ((end < S ? end : static_cast<int>(S)) + KEYS - 1) / KEYS;
    const int whole_tiles = is_wide(D) ? static_cast<int>(S) / KEYS : 0;
    KeyLoader key_loader(Source{{k, stride}, 0, S, 0, D});
    ValueLoader value_loader(Source{{v, stride}, 0, D, 0, S});
    auto fetch = [&](int tile) {
        if (tile >= whole_tiles || tile >= key_tiles) return;
        key_loader.fetch();
        value_loader.fetch();
    };
    auto put = [&](int tile) {
        bf16* target = tiles + tile % 2 * 2 * STREAMED;
        if (tile < whole_tiles) {
            key_loader.put(target);
            value_loader.put(target + STREAMED);
        } else if (tile < key_tiles) {
            key_loader.copy(target);
            value_loader.copy(target + STREAMED);
        }
        key_loader.advance();
        value_loader.advance();
    };
    if (D < HEAD_CHANNELS) {
        for (int i = threadIdx.x; i < 2 * 2 * STREAMED / WIDTH; i += ATTENTION_THREADS) memory[i] = Vector{};
        __syncthreads();
    }
    fetch(0);
    put(0);

    Unit::Operand queries[QUERY_TILES][STEPS];
    for (int t = 0; t < QUERY_TILES; ++t)
        for (int c = 0; c < STEPS; ++c)
            queries[t][c] = query_operand(q, stride, wave_first + t * 16, c * Unit::STEP_K, S, D);
    Unit::Sum out[QUERY_TILES][CHANNEL_TILES] = {};
    float maximum[QUERY_TILES], sum[QUERY_TILES];  // sum: over the lane's own keys
    for (int t = 0; t < QUERY_TILES; ++t) {
        maximum[t] = MASKED;
        sum[t] = 0.0f;
    }
#pragma unroll 1
    for (int tile = 0; tile < key_tiles; ++tile) {
        __syncthreads();
        fetch(tile + 1);
        const int at = tile * KEYS;
        if (at < wave_first + QUERY_TILES * 16) {
            const bf16 *keys = tiles + tile % 2 * 2 * STREAMED, *values = keys + STREAMED;
            Unit::Sum scores[QUERY_TILES][KEY_TILES] = {};
#pragma unroll
            for (int j = 0; j < KEY_TILES; ++j)
#pragma unroll
                for (int c = 0; c < STEPS; ++c) {
                    const Unit::Operand key = KeyTile::load(keys, j * 16, c * Unit::STEP_K);
#pragma unroll
                    for (int t = 0; t < QUERY_TILES; ++t) Unit::multiply(scores[t][j], key, queries[t][c]);
                }
            if (at + KEYS > wave_first) mask(scores, at - wave_first);
            Unit::Operand probabilities[QUERY_TILES][KEY_STEPS];
#pragma unroll
            for (int t = 0; t < QUERY_TILES; ++t)
                rescale(out[t], maximum[t], sum[t], probabilities[t], scores[t], scale);
#pragma unroll
            for (int j = 0; j < KEY_STEPS; ++j)
#pragma unroll
                for (int c = 0; c < CHANNEL_TILES; ++c) {
                    const Unit::Operand value = ValueTile::load(values, c * 16, j * Unit::STEP_K);
#pragma unroll
                    for (int t = 0; t < QUERY_TILES; ++t) Unit::multiply(out[t][c], value, probabilities[t][j]);
                }
        }
        put(tile + 1);
    }
#pragma unroll
    for (int t = 0; t < QUERY_TILES; ++t) {
        const float total = across_query(sum[t], [](float a, float b) { return a + b; });
        const int query = wave_first + t * 16 + lane_of_wave() % 16;
        if (query >= S) continue;
        if (lane_of_wave() < 16) logsumexp[int64_t{head} * S + query] = maximum[t] / LOG2_E + logf(total);
        store(y + ((b * S + query) * H + h) * D, out[t], 1.0f / total, D);
    }
}

// attention_forward in bf16 by AMD's matrix units: formulas, layouts and traffic as in attention.hip; sums in f32.
//
// Scores are computed transposed, S^T = K Q^T: lane l then has scores of one query, l % 16, and 8 neighbouring keys for
// each segment (amd/unit.h). These are the k of an operand of the next product, Y^T = V^T P^T, so probabilities go from
// sums to operands inside a lane, and maximum and sum of a query are one number per lane. Values are transposed once,
// on their way into shared memory.
// A block owns ATTENTION_ROWS queries of a head, ROW_TILES x 16 per wave, and visits tiles of KEYS keys, of which
// the next one is fetched into registers while this one is multiplied. The softmax is online (Milakov & Gimelshein 2018,
// arXiv:1805.02867). HEAD_CHANNELS is D rounded up to 32, 64 or 128. Grid B*H*ceil(S / queries of a block), blocks with
// the most keys to visit first.
#include "gpu/amd/head.h"
#include "formulas.h"

constexpr int KEYS = HEAD_CHANNELS == 128 ? 32 : HEAD_CHANNELS == 64 || WAVE == 32 ? 64 : 128;  // of a tile
constexpr int KEY_STEPS = KEYS / Unit::STEP_K, KEY_TILES = KEYS / 16, STREAMED = KEYS * HEAD_CHANNELS;
constexpr float HEADROOM = 8.0f;  // powers of 2 by which a probability may exceed 1; bf16 and f32 lose nothing by it
typedef float Parts __attribute__((vector_size(8)));  // of a sum
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

// Reduces over the lanes that hold one query, in a fixed order.
template <class Op>
DEVICE float across_query(float value, const Op& op) {
    value = op(value, wave_exchange<16>(value));
    return WAVE == 32 ? value : op(value, wave_exchange<WAVE / 2>(value));
}

// Makes probabilities of the scores of a query, which are relative to its reference. A tile whose largest score exceeds
// `limit` raises the reference and scales the sums of earlier tiles. Most tiles do not, so the wave skips that. sum: of
// the probabilities of the lane's own keys, in two parts. minus_reference: the same in each element.
DEVICE void make_probabilities(Unit::Operand (&probabilities)[KEY_STEPS], Unit::Sum (&scores)[KEY_TILES],
                               Unit::Sum (&out)[CHANNEL_TILES], Unit::Sum& minus_reference, Parts& sum, float limit,
                               float scale) {
    float largest = MASKED;
#pragma unroll
    for (int j = 0; j < KEY_TILES; ++j)
#pragma unroll
        for (int e = 0; e < Unit::SIZE; ++e) largest = fmaxf(largest, scores[j][e]);
    largest = across_query(largest, [](float a, float b) { return fmaxf(a, b); });
    const bool rises = largest > limit;
    if (wave_ballot(rises)) {
        const float rise = rises ? largest : 0.0f, shrink = quick_exp2(-rise * scale);
        minus_reference -= rise;
        sum *= shrink;
#pragma unroll
        for (int c = 0; c < CHANNEL_TILES; ++c) out[c] *= shrink;
#pragma unroll
        for (int j = 0; j < KEY_TILES; ++j) scores[j] -= rise;
    }
#pragma unroll
    for (int j = 0; j < KEY_STEPS; ++j) {
        uint32_t pairs[WIDTH / 2];
#pragma unroll
        for (int i = 0; i < WIDTH; i += Unit::SIZE) {
            const Unit::Sum powers = scores[j * TILES + i / Unit::SIZE] * scale;
#pragma unroll
            for (int e = 0; e < Unit::SIZE; e += 2) {
                const Parts values = {quick_exp2(powers[e]), quick_exp2(powers[e + 1])};
                sum += values;
                pairs[(i + e) / 2] = bf16_pair_of_finite(values[0], values[1]);
            }
        }
        probabilities[j] = Unit::operand_of(pairs);
    }
}

BOUNDED_KERNEL(ATTENTION_THREADS, 2)
attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ Vector memory[2 * 2 * STREAMED / WIDTH];
    bf16* tiles = reinterpret_cast<bf16*>(memory);
    const int heads = uniform(B * H), head = blockIdx.x % heads, h = head % uniform(H), b = head / uniform(H);
    const int blocks = uniform((S + ATTENTION_ROWS - 1) / ATTENTION_ROWS);
    const int first = (blocks - 1 - static_cast<int>(blockIdx.x) / heads) * ATTENTION_ROWS;
    const int64_t stride = 3 * H * D;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D;
    const float scale = LOG2_E / sqrtf(static_cast<float>(D));  // scores become powers of 2: exp2 is one instruction
    const float limit = HEADROOM / scale;  // for the scores of all tiles but the first, which sets the reference
    const int wave_first = first + uniform(threadIdx.x / WAVE) * ROW_TILES * 16, end = first + ATTENTION_ROWS;
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

    OwnRows<true> queries;
    queries.load({q, stride}, wave_first, S, D);
    Unit::Sum out[ROW_TILES][CHANNEL_TILES] = {};
    Parts sum[ROW_TILES] = {};
    Unit::Sum minus_reference[ROW_TILES] = {};
    const unsigned of_keys = OperandTile<HEAD_CHANNELS>::of_lane(),
                   of_values = KEYS == HEAD_CHANNELS ? of_keys : OperandTile<KEYS>::of_lane();
#pragma unroll 1
    for (int tile = 0; tile < key_tiles; ++tile) {
        __syncthreads();
        fetch(tile + 1);
        const int at = tile * KEYS;
        if (at < wave_first + ROW_TILES * 16) {
            const bf16 *keys = tiles + tile % 2 * 2 * STREAMED, *values = keys + STREAMED;
            Unit::Sum scores[ROW_TILES][KEY_TILES];  // the matrix unit subtracts the reference
#pragma unroll
            for (int t = 0; t < ROW_TILES; ++t)
#pragma unroll
                for (int j = 0; j < KEY_TILES; ++j) scores[t][j] = minus_reference[t];
            multiply_rows(scores, keys, of_keys, queries);
            if (at + KEYS > wave_first) mask<false>(scores, at - wave_first);
            Unit::Operand probabilities[ROW_TILES][KEY_STEPS];
#pragma unroll
            for (int t = 0; t < ROW_TILES; ++t)
                make_probabilities(probabilities[t], scores[t], out[t], minus_reference[t], sum[t],
                                   tile ? limit : 2 * MASKED, scale);
            accumulate(out, values, of_values, probabilities);
        }
        put(tile + 1);
    }
#pragma unroll
    for (int t = 0; t < ROW_TILES; ++t) {
        const float total = across_query(sum[t][0] + sum[t][1], [](float a, float b) { return a + b; });
        const int query = wave_first + t * 16 + lane_of_wave() % 16;
        if (query >= S) continue;
        if (lane_of_wave() < 16)
            logsumexp[int64_t{head} * S + query] = logf(total) - minus_reference[t][0] * scale / LOG2_E;
        store(y + ((b * S + query) * H + h) * D, out[t], 1.0f / total, D);
    }
}

// attention_forward in bf16 by AMD's matrix units: formulas, layouts and traffic as in attention.hip; sums in f32.
//
// Scores are computed transposed, S^T = K Q^T: lane l then has scores of one query, l % 16, and 8 neighbouring keys for
// each segment (amd/unit.h). These are the k of an operand of the next product, Y^T = V^T P^T, so probabilities go from
// sums to operands inside a lane, and maximum and sum of a query are one number per lane. Values are transposed once,
// on their way into shared memory.
// A block owns ATTENTION_ROWS queries of a head, ROW_TILES x 16 per wave, and visits tiles of KEYS keys, of which
// the next one is fetched into registers while this one is multiplied. The softmax is online (Milakov & Gimelshein 2018,
// arXiv:1805.02867), relative to a reference that rises only where sums would grow too large.
// HEAD_CHANNELS is D rounded up to 32, 64 or 128. Grid B*H*ceil(S / queries of a block), blocks with the most keys to
// visit first.
#include "gpu/amd/head.h"
#include "formulas.h"

constexpr int KEYS = HEAD_CHANNELS == 128 ? 32 : HEAD_CHANNELS == 64 || WAVE == 32 ? 64 : 128;  // of a tile
constexpr int KEY_STEPS = KEYS / Unit::STEP_K, KEY_TILES = KEYS / 16, STREAMED = KEYS * HEAD_CHANNELS,
              STAGE = 2 * STREAMED;                   // elements of keys and values
constexpr float LARGEST_SUM = 0x1p20f;                // of a lane's probabilities, above which the reference rises
typedef float Parts __attribute__((vector_size(8)));  // of a sum
typedef Unit::Sum Scores[ROW_TILES][KEY_TILES];
typedef Unit::Operand Probabilities[ROW_TILES][KEY_STEPS];
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

// Makes probabilities of scores, which are relative to the references of their queries, and adds them to `sum`, the sum
// over the lane's own keys in two parts.
DEVICE void exponentiate(Probabilities& probabilities, Parts (&sum)[ROW_TILES], const Scores& scores, float scale) {
#pragma unroll
    for (int j = 0; j < KEY_STEPS; ++j)
#pragma unroll
        for (int t = 0; t < ROW_TILES; ++t) {
            uint32_t pairs[WIDTH / 2];
#pragma unroll
            for (int i = 0; i < WIDTH; i += Unit::SIZE) {
                const Unit::Sum powers = scores[t][j * TILES + i / Unit::SIZE] * scale;
#pragma unroll
                for (int e = 0; e < Unit::SIZE; e += 2) {
                    const Parts values = {quick_exp2(powers[e]), quick_exp2(powers[e + 1])};
                    sum[t] += values;
                    pairs[(i + e) / 2] = bf16_pair_of_finite(values[0], values[1]);
                }
            }
            probabilities[t][j] = Unit::operand_of(pairs);
        }
}

// Raises the reference of a query to the largest score of a tile, if that is above it, and scales the sums of earlier
// tiles. The reference need not be the largest score: bf16 and f32 lose nothing while sums are below LARGEST_SUM. So most
// tiles need neither this nor a comparison of their scores. The first tile sets the reference. Its sums are still zero,
// but are scaled all the same, because clang 22 would otherwise spill registers on gfx950 with 128 channels.
DEVICE void raise_reference(Unit::Sum (&scores)[KEY_TILES], Unit::Sum (&out)[CHANNEL_TILES], Unit::Sum& minus_reference,
                            Parts& sum, float scale, bool is_first) {
    float largest = is_first ? MASKED : 0.0f;
#pragma unroll
    for (int j = 0; j < KEY_TILES; ++j)
#pragma unroll
        for (int e = 0; e < Unit::SIZE; ++e) largest = fmaxf(largest, scores[j][e]);
    const float rise = across_query(largest, [](float a, float b) { return fmaxf(a, b); });
    const float shrink = is_first ? 0.0f : quick_exp2(-rise * scale);
    minus_reference -= rise;
    sum *= shrink;
#pragma unroll
    for (int c = 0; c < CHANNEL_TILES; ++c) out[c] *= shrink;
#pragma unroll
    for (int j = 0; j < KEY_TILES; ++j) scores[j] -= rise;
}

BOUNDED_KERNEL(ATTENTION_THREADS, 2)
attention_forward(act* y, float* logsumexp, const act* qkv, int64_t B, int64_t S, int64_t H, int64_t D) {
    __shared__ Vector memory[2 * STAGE / WIDTH];
    bf16* tiles = reinterpret_cast<bf16*>(memory);
    const int heads = uniform(B * H), head = blockIdx.x % heads, h = head % uniform(H), b = head / uniform(H);
    const int blocks = uniform((S + ATTENTION_ROWS - 1) / ATTENTION_ROWS);
    const int first = (blocks - 1 - static_cast<int>(blockIdx.x) / heads) * ATTENTION_ROWS;
    const int64_t stride = 3 * H * D;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D;
    // scores become powers of 2: exp2 is one instruction
    const float scale = uniform_float(LOG2_E / sqrtf(static_cast<float>(D)));
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
    auto put = [&](int tile, bf16* target) {
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
        for (int i = threadIdx.x; i < 2 * STAGE / WIDTH; i += ATTENTION_THREADS) memory[i] = Vector{};
        __syncthreads();
    }
    fetch(0);
    put(0, tiles);

    OwnRows<true> queries;
    queries.load({q, stride}, wave_first, S, D);
    Unit::Sum out[ROW_TILES][CHANNEL_TILES] = {};
    Parts sum[ROW_TILES] = {};
    Unit::Sum minus_reference[ROW_TILES] = {};
    const unsigned of_keys = OperandTile<HEAD_CHANNELS>::of_lane(),
                   of_values = KEYS == HEAD_CHANNELS ? of_keys : OperandTile<KEYS>::of_lane();
    visit_in_turn(key_tiles, [&](int tile, int odd) {
        __syncthreads();
        fetch(tile + 1);
        const int at = tile * KEYS;
        if (at < wave_first + ROW_TILES * 16) {
            const bf16 *keys = tiles + odd * STAGE, *values = keys + STREAMED;
            Scores scores;  // the matrix unit subtracts the reference
#pragma unroll
            for (int t = 0; t < ROW_TILES; ++t)
#pragma unroll
                for (int j = 0; j < KEY_TILES; ++j) scores[t][j] = minus_reference[t];
            multiply_rows(scores, keys, of_keys, queries);
            if (at + KEYS > wave_first) mask<false>(scores, at - wave_first);
            if (tile == 0)
                for (int t = 0; t < ROW_TILES; ++t)
                    raise_reference(scores[t], out[t], minus_reference[t], sum[t], scale, true);
            Probabilities probabilities;
            Parts sum_with_these[ROW_TILES];
            for (int t = 0; t < ROW_TILES; ++t) sum_with_these[t] = sum[t];
            exponentiate(probabilities, sum_with_these, scores, scale);
            float most = 0.0f;
            for (const Parts& each : sum_with_these) most = fmaxf(most, each[0] + each[1]);
            if (wave_ballot(most >= LARGEST_SUM)) {
                for (int t = 0; t < ROW_TILES; ++t) {
                    raise_reference(scores[t], out[t], minus_reference[t], sum[t], scale, false);
                    sum_with_these[t] = sum[t];
                }
                exponentiate(probabilities, sum_with_these, scores, scale);
            }
            for (int t = 0; t < ROW_TILES; ++t) sum[t] = sum_with_these[t];
            accumulate(out, values, of_values, probabilities);
        }
        put(tile + 1, tiles + (1 - odd) * STAGE);
    });
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

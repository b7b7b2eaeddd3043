// attention_backward in bf16 by AMD's matrix units: formulas, layouts and traffic as in attention.hip; sums in f32.
//
// The first half of the blocks owns keys and values and computes dk and dv, the second half owns queries and computes
// dq. So no two blocks add to the same number, and the scores are computed twice. Products are transposed, as amd/head.h
// says. In names, qk is keys or queries and vdy is values or dy, whichever of the two the block owns or visits.
//
// A block visits tiles of VISITED rows, of which the next ones are fetched into registers while these are multiplied. A
// tile is fetched once and stored twice: by rows for the scores, transposed for the sums over its rows.
// The owned vdy are negated, and their products start from delta: so the matrix unit computes delta - dp.
// HEAD_CHANNELS is D rounded up to 32, 64 or 128. Grid 2*B*H*ceil(S / ATTENTION_ROWS), blocks with the most rows to
// visit first.
#include "gpu/amd/head.h"
#include "formulas.h"

constexpr int VISITED = WAVE == 32 ? HEAD_CHANNELS == 32 ? 32 : 16 : HEAD_CHANNELS == 32 ? 64 : 32;  // rows of a tile
constexpr int STEPS = VISITED / Unit::STEP_K, VISITED_TILES = VISITED / 16, TILE = VISITED * HEAD_CHANNELS;
// The own rows stay in shared memory.
constexpr bool FEW_REGISTERS = !Unit::MANY_REGISTERS && HEAD_CHANNELS == 128;
using Own = OwnRows<!FEW_REGISTERS>;
// A SIMD holds one wave of this kernel, which would only wait for the block's other waves if it left out a tile.
constexpr bool ALWAYS_MULTIPLIES = HEAD_CHANNELS == 128;
// Turns of an iteration. With two, the place of each in shared memory is constant. The widest heads leave no registers
// for it.
constexpr int TURNS = HEAD_CHANNELS == 128 ? 1 : 2;
typedef Unit::Sum Products[ROW_TILES][VISITED_TILES];
typedef Unit::Operand Factors[ROW_TILES][STEPS];
constexpr float NO_QUERY = 1e30f;  // the logsumexp of queries beyond the sequence: their probabilities become 0

// Loads tiles of a head's rows: half of the block's threads load qk, the other half vdy.
struct TileLoader : TransposingLoader<HEAD_CHANNELS, VISITED, true, ATTENTION_THREADS / 2> {
    using Rows = OperandTile<HEAD_CHANNELS>;
    unsigned row_target;  // of the thread's first k and i in a tile of rows

    DEVICE_MEMBER explicit TileLoader(const Source& given) : TransposingLoader(given) {
        row_target = opaque(Rows::offset(Unit::place_of(first_k(thread())), first_i(thread())));
    }

    // Or clang would keep more offsets than there are registers for.
    DEVICE_MEMBER void hide_targets() {
        target = opaque(target);
        row_target = opaque(row_target);
    }
    // The same as `fetch` for a tile that is not whole or not aligned: zero outside.
    DEVICE_MEMBER void fetch_elements() {
        const unsigned own = opaque(thread());
#pragma unroll
        for (int e = 0; e < EACH; ++e)
#pragma unroll
            for (int k = 0; k < 4; ++k)
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int row = first_k(own) + e * DOWN * 4 + k, channel = first_i(own) + 2 * half;
                    fetched[e][k][half] =
                        opaque(source.element<false>(channel, row) | source.element<false>(channel + 1, row) << 16);
                }
    }
    // Stores the tile's rows in the unit's order, with K along channels.
    DEVICE_MEMBER void put_rows(bf16* tile) const {
#pragma unroll
        for (int e = 0; e < EACH; ++e)
#pragma unroll
            for (int k = 0; k < 4; ++k) {
                const unsigned place = Unit::place_of(e * DOWN * 4) + k * Unit::PLACE_STEP;
                *Rows::at<HalfChunk>(tile, row_target, place, 0) = fetched[e][k];
            }
    }
};

// Logsumexp in powers of 2 and delta of the queries of a tile, in the order of its scores in a lane.
struct Queries {
    Unit::Sum logsumexp[VISITED_TILES], delta[VISITED_TILES];

    // The arrays are the head's, `first` is the tile's first query.
    DEVICE_MEMBER void fetch(const float* of_logsumexp, const float* of_delta, int first) {
        typedef float Values __attribute__((vector_size(4 * Unit::SIZE), aligned(4)));
        const unsigned offset = opaque(lane_of_wave() / 16 * WIDTH * 4);  // bytes
#pragma unroll
        for (int j = 0; j < VISITED_TILES; ++j) {
            const int row = first + visited_row(j, 0);
            const char *logsumexps = reinterpret_cast<const char*>(of_logsumexp + row),
                       *deltas = reinterpret_cast<const char*>(of_delta + row);
            logsumexp[j] = *reinterpret_cast<const Values*>(logsumexps + offset);
            delta[j] = *reinterpret_cast<const Values*>(deltas + offset);
        }
    }
    // The same for a tile with queries beyond S.
    DEVICE_MEMBER void fetch_elements(const float* of_logsumexp, const float* of_delta, int first, int S) {
        const int own = first + opaque(lane_of_wave()) / 16 * WIDTH;
#pragma unroll
        for (int j = 0; j < VISITED_TILES; ++j)
#pragma unroll
            for (int e = 0; e < Unit::SIZE; ++e) {
                const int query = own + visited_row(j, e);
                logsumexp[j][e] = opaque(query < S ? of_logsumexp[query] : NO_QUERY);
                delta[j][e] = opaque(query < S ? of_delta[query] : 0.0f);
            }
    }
};

// Probabilities and -ds of scores relative to the logsumexp, and of delta - dp.
DEVICE void differentiate(Factors& probabilities, Factors& ds, const Products& scores, const Products& differences,
                          float power_scale) {
#pragma unroll
    for (int j = 0; j < STEPS; ++j)
#pragma unroll
        for (int t = 0; t < ROW_TILES; ++t) {
            uint32_t pairs[WIDTH / 2], ds_pairs[WIDTH / 2];
#pragma unroll
            for (int i = 0; i < TILES; ++i) {
                const int tile = j * TILES + i;
                Unit::Sum p = scores[t][tile] * power_scale;
#pragma unroll
                for (int e = 0; e < Unit::SIZE; ++e) p[e] = quick_exp2(p[e]);
                const Unit::Sum negative_ds = p * differences[t][tile];
#pragma unroll
                for (int e = 0; e < Unit::SIZE; e += 2) {
                    const int pair = (i * Unit::SIZE + e) / 2;
                    pairs[pair] = bf16_pair_of_finite(p[e], p[e + 1]);
                    ds_pairs[pair] = bf16_pair_of_finite(negative_ds[e], negative_ds[e + 1]);
                }
            }
            probabilities[t][j] = Unit::operand_of(pairs);
            ds[t][j] = Unit::operand_of(ds_pairs);
        }
}

// dk and dv of a block's keys and values, or dq of its queries.
template <bool OWNS_KEYS>
DEVICE void backward(bf16* tiles, bf16* own_rows, act* dqkv, const act* dy, const float* delta, const float* logsumexp,
                     const act* qkv, int block, int64_t B, int64_t S, int64_t H, int64_t D) {
    const int heads = uniform(B * H), head = block % heads, h = head % uniform(H), b = head / uniform(H);
    const int length = uniform(S), blocks = (length + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
    const int first = (OWNS_KEYS ? block / heads : blocks - 1 - block / heads) * ATTENTION_ROWS;
    const int wave_first = first + uniform(threadIdx.x / WAVE) * ROW_TILES * 16, wave_end = wave_first + ROW_TILES * 16;
    const int begin = OWNS_KEYS ? first : 0;
    const int end = OWNS_KEYS || first + ATTENTION_ROWS > length ? length : first + ATTENTION_ROWS;
    const int turns = (end - begin + VISITED - 1) / VISITED, whole_turns = is_wide(D) ? (length - begin) / VISITED : 0;
    const int64_t stride = 3 * H * D;
    const act *q = qkv + b * S * stride + h * D, *k = q + H * D, *v = k + H * D, *dout = dy + (b * S * H + h) * D;
    const Matrix queries = {q, stride}, keys = {k, stride}, values = {v, stride}, gradients = {dout, H * D};
    const float scale = uniform_float(1.0f / sqrtf(static_cast<float>(D))), power_scale = uniform_float(scale * LOG2_E);
    // times a logsumexp: what the matrix unit adds to scores
    const float minus_logsumexp = uniform_float(-1.0f / scale);
    const float *head_logsumexp = logsumexp + head * S, *head_delta = delta + head * S;

    // of a turn, in shared memory: rows and transposed tile of qk, rows of vdy, and transposed if dv is computed
    constexpr int TURN = (OWNS_KEYS ? 4 : 3) * TILE;
    const bool loads_vdy = uniform(threadIdx.x / (ATTENTION_THREADS / 2));
    const Matrix loaded = loads_vdy ? OWNS_KEYS ? gradients : values : OWNS_KEYS ? queries : keys;
    TileLoader loader(Source{loaded, 0, D, begin, S});
    Queries queries_of[TURNS];  // of the tiles of an iteration's turns, if these have queries
    auto fetch = [&](int turn, Queries& fetched) {
        const int at = begin + turn * VISITED;
        if (turn < whole_turns) {
            if (OWNS_KEYS) fetched.fetch(head_logsumexp, head_delta, at);  // first: then `put` waits for them too
            loader.fetch();
        } else if (turn < turns) {
            if (OWNS_KEYS) fetched.fetch_elements(head_logsumexp, head_delta, at, length);
            loader.fetch_elements();
        }
    };
    auto put = [&](bf16* turn) {
        bf16* target = turn + (loads_vdy ? 2 * TILE : 0);
        if (FEW_REGISTERS) loader.hide_targets();
        loader.put_rows(target);
        if (OWNS_KEYS || !loads_vdy) loader.put(target + TILE);
        loader.advance();
    };
    fetch(0, queries_of[0]);
    const unsigned of_rows = OperandTile<HEAD_CHANNELS>::of_lane(),
                   of_channels = VISITED == HEAD_CHANNELS ? of_rows : OperandTile<VISITED>::of_lane();
    Own own_qk, own_vdy;
    own_qk.own = own_vdy.own = of_rows;
    own_qk.tile = own_rows + threadIdx.x / WAVE * 2 * Own::TILE;
    own_vdy.tile = own_qk.tile + Own::TILE;
    own_qk.load(OWNS_KEYS ? keys : queries, wave_first, S, D);
    own_vdy.load(OWNS_KEYS ? values : gradients, wave_first, S, D, true);
    Unit::Sum own_logsumexp[ROW_TILES], own_delta[ROW_TILES];  // the former as `minus_logsumexp` says
    for (int t = 0; t < ROW_TILES; ++t) {
        const int query = wave_first + t * 16 + lane_of_wave() % 16;
        own_logsumexp[t] =
            Unit::Sum{} + (!OWNS_KEYS && query < length ? head_logsumexp[query] : NO_QUERY) * minus_logsumexp;
        own_delta[t] = Unit::Sum{} + (!OWNS_KEYS && query < length ? head_delta[query] : 0.0f);
    }
    put(tiles);
    Unit::Sum dqk[ROW_TILES][CHANNEL_TILES] = {}, dv[ROW_TILES][CHANNEL_TILES] = {};

    // Not `visit_in_turn`: clang copies no sums in this loop. With it, heads of 64 channels would take 196 registers in
    // place of 190 on gfx1201, so a SIMD would hold 6 waves in place of 8.
#pragma unroll 1
    for (int first_turn = 0; first_turn < turns; first_turn += TURNS)
#pragma unroll
        for (int i = 0; i < TURNS; ++i) {
            const int turn = first_turn + i, odd = TURNS == 2 ? i : turn % 2;
            if (turn == turns) break;
            __syncthreads();
            const Queries visited = queries_of[i];
            fetch(turn + 1, queries_of[(i + 1) % TURNS]);
            const int at = begin + turn * VISITED;
            const unsigned rows = FEW_REGISTERS ? opaque(of_rows) : of_rows,
                           channels = FEW_REGISTERS ? opaque(of_channels) : of_channels;
            const bf16 *qk = tiles + odd * TURN, *vdy = qk + 2 * TILE;
            if (ALWAYS_MULTIPLIES || (OWNS_KEYS ? at + VISITED > wave_first : at < wave_end)) {
                Products scores, differences;
#pragma unroll
                for (int t = 0; t < ROW_TILES; ++t)
#pragma unroll
                    for (int j = 0; j < VISITED_TILES; ++j) {
                        scores[t][j] = OWNS_KEYS ? visited.logsumexp[j] * minus_logsumexp : own_logsumexp[t];
                        differences[t][j] = OWNS_KEYS ? visited.delta[j] : own_delta[t];
                    }
                multiply_rows(scores, qk, rows, own_qk);
                multiply_rows(differences, vdy, rows, own_vdy);
                if (OWNS_KEYS ? at < wave_end : at + VISITED > wave_first) mask<OWNS_KEYS>(scores, at - wave_first);
                Factors probabilities, ds;
                differentiate(probabilities, ds, scores, differences, power_scale);
                accumulate(dqk, qk + TILE, channels, ds);
                if (OWNS_KEYS) accumulate(dv, vdy + TILE, channels, probabilities);
            }
            put(tiles + (1 - odd) * TURN);
        }
    act* target = dqkv + b * S * stride + h * D + (OWNS_KEYS ? H * D : 0);
#pragma unroll
    for (int t = 0; t < ROW_TILES; ++t) {
        const int row = wave_first + t * 16 + lane_of_wave() % 16;
        if (row >= length) continue;
        store(target + row * stride, dqk[t], -scale, D);
        if (OWNS_KEYS) store(target + row * stride + H * D, dv[t], 1.0f, D);
    }
}

BOUNDED_KERNEL(ATTENTION_THREADS, ALWAYS_MULTIPLIES ? 1 : 2)
attention_backward(act* dqkv, const act* dy, const float* delta, const float* logsumexp, const act* qkv, int64_t B,
                   int64_t S, int64_t H, int64_t D) {
    __shared__ Vector memory[(2 * 4 * TILE + MMA_WAVES * 2 * Own::TILE) / WIDTH];
    bf16* tiles = reinterpret_cast<bf16*>(memory);
    const int half = gridDim.x / 2, block = blockIdx.x;
    if (block < half)
        backward<true>(tiles, tiles + 2 * 4 * TILE, dqkv, dy, delta, logsumexp, qkv, block, B, S, H, D);
    else
        backward<false>(tiles, tiles + 2 * 4 * TILE, dqkv, dy, delta, logsumexp, qkv, block - half, B, S, H, D);
}

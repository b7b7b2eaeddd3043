// attention_short_backward: attention_delta and attention_backward in one launch, for short sequences: formulas and
// layouts as in attention.hip, in bf16 by NVIDIA's matrix instructions, sums in f32.
//
// A block has one head whole in shared memory. A wave owns up to two groups of KEY_TILES tiles of MMA_TILE keys, one after
// the other, and visits the query tiles that see them. It computes the transposed scores K Q^T and V dy^T, so that p and
// ds are in the layout of a left operand: dv = p^T dy and dk = ds^T q need no other wave. Each ds is also stored in
// shared memory. After a barrier the wave owns queries in place of keys, and dq = ds k. So every pair of tiles is visited
// once, and every sum has a fixed order.
// ds takes the place of the values, which the waves keep in registers. ds of a tile on the diagonal stays with its wave
// until dy and the queries are no longer read, because the same wave owns its keys and its queries.
//
// Macros: HEAD_CHANNELS is D rounded up to 32 or 64. KEY_TILES, 1 or 2: with two, a load from shared memory serves twice
// as many products. D is a multiple of WIDTH, S at most SHORT_ROWS.
// Grid B*H; block: at least half as many waves as groups. Minimum traffic: 8*B*S*H*D*sizeof(act) + 4*B*H*S bytes.
#include "gpu/mma/mma_sync.h"
#ifndef HEAD_CHANNELS
#define HEAD_CHANNELS 32  // channels that a tile has room for: those from D on are zero
#define KEY_TILES 2
#endif

constexpr float LOG2_E = 1.44269504f, NEVER = 1e30f;
constexpr int CHUNKS = HEAD_CHANNELS / WIDTH, ALONG = HEAD_CHANNELS / MMA_TILE;
constexpr int EACH = KEY_TILES * CHUNKS;                                    // most chunks of a thread
constexpr int TILE = MMA_TILE * HEAD_CHANNELS, PAIR = MMA_TILE * MMA_TILE;  // elements of a tile of rows, and of ds

using Operand = Mma::Operand;
using Sum = Mma::Sum;
using Rows = SharedTile<CHUNKS>;
using Square = SharedTile<MMA_TILE / WIDTH>;

struct Sizes {
    int S, H, D, tiles;  // tiles: of whole groups
};

// Of two neighbouring queries; logsumexp in powers of 2.
struct alignas(16) Statistics {
    float logsumexp[2], delta[2];
};

struct Memory {
    Statistics* statistics;
    bf16 *keys, *queries, *dout, *values;  // tiles of rows
    bf16* ds;                              // squares, those of a query tile in a row

    DEVICE_MEMBER Memory(unsigned char* bytes, int tiles) {
        statistics = reinterpret_cast<Statistics*>(bytes);
        keys = reinterpret_cast<bf16*>(statistics + tiles * MMA_TILE / 2);
        queries = keys + tiles * TILE;
        dout = queries + tiles * TILE;
        ds = values = dout + tiles * TILE;
    }

    // ds of a key tile and a query tile after it, transposed.
    DEVICE_MEMBER bf16* square(int key_tile, int query_tile) const {
        return ds + (query_tile * (query_tile - 1) / 2 + key_tile) * PAIR;
    }

    // The same on the diagonal.
    DEVICE_MEMBER bf16* diagonal(int tile) const { return queries + tile * TILE; }
};

// What a thread copies of a head's rows: chunk `i` of all, counted along the rows.
struct Chunk {
    int row, column;
    bool inside;
    DEVICE_MEMBER Chunk(int i, const Sizes& sizes)
        : row(i / CHUNKS), column(i % CHUNKS * WIDTH), inside(row < sizes.S && column < sizes.D) {}
    DEVICE_MEMBER bf16* in(bf16* tiles) const { return tiles + Rows::offset(row, column / WIDTH); }
};

// Brings a head into shared memory, zeros for rows from S on and channels from D on.
DEVICE void load_head(const Memory& memory, const act* q, const act* dout, const act* y, const float* logsumexp,
                      const Sizes& sizes) {
    const int chunks = sizes.tiles * MMA_TILE * CHUNKS, E = sizes.H * sizes.D;
    Vector outputs[EACH];
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        const int i = threadIdx.x + e * blockDim.x;
        if (i >= chunks) break;
        const Chunk chunk(i, sizes);
        const int at = chunk.row * 3 * E + chunk.column, y_at = chunk.row * E + chunk.column;
        outputs[e] = chunk.inside ? *reinterpret_cast<const Vector*>(y + y_at) : Vector{};
        copy_chunk(chunk.in(memory.keys), q + E + at, chunk.inside);
        copy_chunk(chunk.in(memory.values), q + 2 * E + at, chunk.inside);
        copy_chunk(chunk.in(memory.queries), q + at, chunk.inside);
        copy_chunk(chunk.in(memory.dout), dout + y_at, chunk.inside);
    }
    copies_commit();
    for (int row = threadIdx.x; row < sizes.tiles * MMA_TILE; row += blockDim.x)
        // no key has a share in a query from S on
        memory.statistics[row / 2].logsumexp[row % 2] = row < sizes.S ? logsumexp[row] * LOG2_E : NEVER;
    copies_wait<0>();
#pragma unroll
    for (int e = 0; e < EACH; ++e) {
        const int i = threadIdx.x + e * blockDim.x;
        if (i >= chunks) break;
        const Chunk chunk(i, sizes);
        float own[WIDTH], gradient[WIDTH], sum = 0.0f;
        widen(own, outputs[e]);
        load(gradient, chunk.in(memory.dout));  // which this thread has copied
        for (int c = 0; c < WIDTH; ++c) sum += own[c] * gradient[c];
        sum = sum_of_lanes<CHUNKS>(sum);
        if (chunk.column == 0) memory.statistics[chunk.row / 2].delta[chunk.row % 2] = sum;
    }
}

// Stores the rows of a tile that are below S, times a factor, as rows of dqkv. The four lanes that hold a row exchange pairs
// of channels, so that each stores neighbours by 16 bytes.
DEVICE void store_rows(act* target, const Sum (&sums)[ALONG], float factor, int tile, const Sizes& sizes) {
    const int lane = Mma::lane() % 4;
#pragma unroll
    for (int slot = 0; slot < Mma::SLOTS; ++slot)
#pragma unroll
        for (int group = 0; group < ALONG; group += 2) {
            float pairs[4];  // bits: of channels 8 * i + 2 * lane and the next
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float* pair = sums[group + i / 2].value + i % 2 * 4 + slot * 2;
                pairs[i] = bits_float(static_cast<int32_t>(bf16_pair(pair[0] * factor, pair[1] * factor)));
            }
#pragma unroll
            for (int bit = 1; bit < 4; bit *= 2)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (i & bit) continue;
                    const float got = wave_exchange(lane & bit ? pairs[i] : pairs[i + bit], bit);
                    (lane & bit ? pairs[i] : pairs[i + bit]) = got;
                }
            const int row = tile * MMA_TILE + Mma::row(slot), column = group * MMA_TILE + lane * WIDTH;
            Vector vector;
            for (int i = 0; i < 4; ++i) vector.word[i] = static_cast<uint32_t>(float_bits(pairs[i]));
            if (row < sizes.S && column < sizes.D)
                *reinterpret_cast<Vector*>(target + row * 3 * sizes.H * sizes.D + column) = vector;
        }
}

// Stores ds, packed as a left operand, as a square.
DEVICE void store_square(bf16* square, const Operand& ds) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
        *reinterpret_cast<uint32_t*>(Square{square}.at(0, Mma::row(Mma::slot(2 * i)), Mma::column(2 * i))) = ds.pair[i];
}

// The query tile that a wave visits.
struct Visited {
    bf16 *queries, *dout;
    const Statistics* statistics;

    DEVICE_MEMBER Visited(const Memory& memory, int tile)
        : queries(memory.queries + tile * TILE),
          dout(memory.dout + tile * TILE),
          statistics(memory.statistics + tile * MMA_TILE / 2) {}

    DEVICE_MEMBER void advance() {
        queries += TILE;
        dout += TILE;
        statistics += MMA_TILE / 2;
    }
};

// A group of keys.
struct Group {
    Operand key[KEY_TILES][ALONG], value[KEY_TILES][ALONG];
    Sum dk[KEY_TILES][ALONG], dv[KEY_TILES][ALONG];

    // Adds a query tile's share to the first COUNT key tiles, the last of which may be on the diagonal. Stores ds^T from
    // `square` on but for the diagonal's, which it returns.
    template <int COUNT, bool DIAGONAL>
    DEVICE_MEMBER Operand visit(const Visited& visited, bf16* square, float power_scale) {
        const Rows queries{visited.queries}, dout{visited.dout};
        Sum probabilities[COUNT] = {}, gradients[COUNT] = {};
#pragma unroll
        for (int c = 0; c < ALONG; ++c) {
            const Mma::Columns query = Mma::load_columns(queries, 0, c * MMA_TILE),
                               dy = Mma::load_columns(dout, 0, c * MMA_TILE);
#pragma unroll
            for (int j = 0; j < COUNT; ++j) {
                Mma::multiply(probabilities[j], key[j][c], query);
                Mma::multiply(gradients[j], value[j][c], dy);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const Statistics of = visited.statistics[Mma::column(4 * half) / 2];
#pragma unroll
            for (int j = 0; j < COUNT; ++j)
#pragma unroll
                for (int e = 4 * half; e < 4 * half + 4; ++e) {
                    float& p = probabilities[j].value[e];
                    p = quick_exp2(p * power_scale - of.logsumexp[e % 2]);
                    if (DIAGONAL && j == COUNT - 1 && Mma::row(Mma::slot(e)) > Mma::column(e)) p = 0.0f;
                    gradients[j].value[e] = p * (gradients[j].value[e] - of.delta[e % 2]);
                }
        }
        Operand p[COUNT], ds[COUNT];
#pragma unroll
        for (int j = 0; j < COUNT; ++j) {
            p[j] = Mma::pack(probabilities[j]);
            ds[j] = Mma::pack(gradients[j]);
            if (j < COUNT - DIAGONAL) store_square(square + j * PAIR, ds[j]);
        }
#pragma unroll
        for (int c = 0; c < ALONG; ++c) {
            const Mma::Columns dy = Mma::load_columns_transposed(dout, c * MMA_TILE, 0),
                               query = Mma::load_columns_transposed(queries, c * MMA_TILE, 0);
#pragma unroll
            for (int j = 0; j < COUNT; ++j) {
                Mma::multiply(dv[j][c], p[j], dy);
                Mma::multiply(dk[j][c], ds[j], query);
            }
        }
        return ds[COUNT - 1];
    }
};

DEVICE void load_group(Operand (&rows)[KEY_TILES][ALONG], bf16* tiles, int first) {
#pragma unroll
    for (int j = 0; j < KEY_TILES; ++j)
#pragma unroll
        for (int c = 0; c < ALONG; ++c) rows[j][c] = Mma::load(Rows{tiles}, (first + j) * MMA_TILE, c * MMA_TILE);
}

KERNEL(SHORT_THREADS)
attention_short_backward(act* dqkv, const act* dy, const act* y, const float* logsumexp, const act* qkv, int64_t /*B*/,
                         int64_t S, int64_t H, int64_t D) {
    extern __shared__ __align__(128) unsigned char bytes[];
    constexpr int GROUP = KEY_TILES * MMA_TILE;
    const Sizes sizes = {static_cast<int>(S), static_cast<int>(H), static_cast<int>(D),
                         static_cast<int>(S + GROUP - 1) / GROUP * KEY_TILES};
    const int b = blockIdx.x / sizes.H, h = blockIdx.x % sizes.H;
    const int64_t first = b * S * H * D, column = h * D;
    const Memory memory(bytes, sizes.tiles);
    load_head(memory, qkv + 3 * first + column, dy + first + column, y + first + column, logsumexp + blockIdx.x * S,
              sizes);
    __syncthreads();

    // the first and the last group, the second and the last but one: all waves have the same work
    const int wave = uniform(threadIdx.x / WAVE), waves = blockDim.x / WAVE,
              own[2] = {wave * KEY_TILES, (2 * waves - 1 - wave) * KEY_TILES};
    const float scale = 1.0f / sqrtf(static_cast<float>(D));
    act *const dq = dqkv + 3 * first + column, *const dk = dq + H * D, *const dv = dk + H * D;
    Group group;
    Operand later_value[KEY_TILES][ALONG], diagonals[2][KEY_TILES];
    load_group(group.value, memory.values, own[0]);
    if (own[1] < sizes.tiles) load_group(later_value, memory.values, own[1]);
    __syncthreads();
#pragma unroll 1
    for (int turn = 0, tile = own[0]; turn < 2 && tile < sizes.tiles; ++turn, tile = own[1]) {
        load_group(group.key, memory.keys, tile);
#pragma unroll
        for (int j = 0; j < KEY_TILES; ++j)
#pragma unroll
            for (int c = 0; c < ALONG; ++c) group.dk[j][c] = group.dv[j][c] = {};
        Visited visited(memory, tile);
        diagonals[1][0] = group.visit<1, true>(visited, nullptr, scale * LOG2_E);
        int at = tile + 1;
        bf16* square = memory.square(tile, at);
        if constexpr (KEY_TILES == 2) {
            visited.advance();
            diagonals[1][1] = group.visit<2, true>(visited, square, scale * LOG2_E);
            square += at++ * PAIR;
        }
#pragma unroll
        for (int j = 0; j < KEY_TILES; ++j)
            if (turn == 0) diagonals[0][j] = diagonals[1][j];
#pragma unroll 1
        for (; at < sizes.tiles; square += at++ * PAIR) {
            visited.advance();
            group.visit<KEY_TILES, false>(visited, square, scale * LOG2_E);
        }
#pragma unroll
        for (int j = 0; j < KEY_TILES; ++j) {
            store_rows(dk, group.dk[j], scale, tile + j, sizes);
            store_rows(dv, group.dv[j], 1.0f, tile + j, sizes);
#pragma unroll
            for (int c = 0; c < ALONG; ++c) group.value[j][c] = later_value[j][c];
        }
    }
    __syncthreads();
#pragma unroll
    for (int turn = 0; turn < 2; ++turn)
#pragma unroll
        for (int j = 0; j < KEY_TILES; ++j)
            if (own[turn] < sizes.tiles) store_square(memory.diagonal(own[turn] + j), diagonals[turn][j]);
    wave_barrier();
#pragma unroll 1
    for (int turn = 0, tile = own[0]; turn < 2 && tile < sizes.tiles; ++turn, tile = own[1]) {
        Sum sums[KEY_TILES][ALONG] = {};
#pragma unroll 1
        for (int at = 0; at < tile + KEY_TILES; ++at) {
            Mma::Columns key[ALONG];
#pragma unroll
            for (int c = 0; c < ALONG; ++c)
                key[c] = Mma::load_columns_transposed(Rows{memory.keys}, c * MMA_TILE, at * MMA_TILE);
#pragma unroll
            for (int j = 0; j < KEY_TILES; ++j) {
                const int query_tile = tile + j;
                if (at > query_tile) continue;
                const Square square{at < query_tile ? memory.square(at, query_tile) : memory.diagonal(query_tile)};
                const Operand ds = Mma::load_transposed(square, 0, 0);
#pragma unroll
                for (int c = 0; c < ALONG; ++c) Mma::multiply(sums[j][c], ds, key[c]);
            }
        }
#pragma unroll
        for (int j = 0; j < KEY_TILES; ++j) store_rows(dq, sums[j], scale, tile + j, sizes);
    }
}

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
#include "gpu/mma/whole_head_gradients.h"

using Square = SharedTile<MMA_TILE / WIDTH>;

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
            const Mma::OperandB query = Mma::load_b(queries, 0, c * MMA_TILE), dy = Mma::load_b(dout, 0, c * MMA_TILE);
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
            const Mma::OperandB dy = Mma::load_b_transposed(dout, c * MMA_TILE, 0),
                                query = Mma::load_b_transposed(queries, c * MMA_TILE, 0);
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

// sums += ds k, for one key tile and the query tiles of a group from `tile` + FIRST on.
template <int FIRST>
DEVICE void multiply_keys(Sum (&sums)[KEY_TILES][ALONG], const Memory& memory, int tile, int key_tile) {
    Operand ds[KEY_TILES];
#pragma unroll
    for (int j = FIRST; j < KEY_TILES; ++j) {
        const bool on_diagonal = FIRST == j && key_tile == tile + j;
        const Square square{on_diagonal ? memory.diagonal(key_tile) : memory.square(key_tile, tile + j)};
        ds[j] = Mma::load_transposed(square, 0, 0);
    }
#pragma unroll
    for (int c = 0; c < ALONG; ++c) {
        const Mma::OperandB key = Mma::load_b_transposed(Rows{memory.keys}, c * MMA_TILE, key_tile * MMA_TILE);
#pragma unroll
        for (int j = FIRST; j < KEY_TILES; ++j) Mma::multiply(sums[j][c], ds[j], key);
    }
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

    const OwnTiles groups;
    const int own[2] = {groups[0] * KEY_TILES, groups[1] * KEY_TILES};
    const float scale = 1.0f / sqrtf(static_cast<float>(D)), scales[Mma::SLOTS] = {scale, scale},
                ones[Mma::SLOTS] = {1.0f, 1.0f};
    const int stride = 3 * sizes.H * sizes.D;
    act *const dq = dqkv + 3 * first + column, *const dk = dq + H * D, *const dv = dk + H * D;
    Group group;
    Operand later_value[KEY_TILES][ALONG], diagonals[2][KEY_TILES];
    if (own[0] < sizes.tiles) load_group(group.value, memory.values, own[0]);
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
            store_rows(dk, stride, group.dk[j], scales, tile + j, sizes);
            store_rows(dv, stride, group.dv[j], ones, tile + j, sizes);
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
#pragma unroll 2
        for (int at = 0; at <= tile; ++at) multiply_keys<0>(sums, memory, tile, at);
        if constexpr (KEY_TILES == 2) multiply_keys<1>(sums, memory, tile, tile + 1);
#pragma unroll
        for (int j = 0; j < KEY_TILES; ++j) store_rows(dq, stride, sums[j], scales, tile + j, sizes);
    }
}

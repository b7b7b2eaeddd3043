// attention_forward in bf16 by NVIDIA's matrix instructions, for short sequences: formulas, layouts and traffic as in
// attention.hip; sums in f32.
//
// A block has one head whole in shared memory. A wave owns up to two tiles of MMA_TILE queries, one after the other, and
// visits the keys that they see, Head::STREAMED_ROWS at once. HEAD_CHANNELS is D rounded up to 32 or 64; D is a multiple
// of WIDTH, S at most SHORT_ROWS. Grid B*H; block: at least half as many waves as tiles.
#include "gpu/mma/online_softmax.h"
#include "gpu/mma/whole_head.h"

// Adds a tile of keys and values from `at` on to the sums of queries from `query` on.
template <class MmaTiles>
DEVICE void visit(OnlineSoftmax& softmax, const Head::Resident& queries, bf16* keys, bf16* values, int query, int at,
                  const MmaTiles& seen, float scale) {
    Sum scores[Head::DOWN];
    Head::multiply_ABt(scores, queries, keys + at * HEAD_CHANNELS, seen);
    if constexpr (MmaTiles::RAGGED) {
#pragma unroll
        for (int j = 0; j < Head::DOWN; ++j)
#pragma unroll
            for (int e = 0; e < Mma::SIZE; ++e)
                if (at + j * MMA_TILE + Mma::column(e) > query + Mma::row(Mma::slot(e))) scores[j].value[e] = MASKED;
    }
    softmax.weigh(scores, seen, scale);
    Head::accumulate_AB(softmax.out, scores, values + at * HEAD_CHANNELS, seen);
}

KERNEL(SHORT_THREADS)
attention_forward(act* y, float* logsumexp, const act* qkv, int64_t /*B*/, int64_t S, int64_t H, int64_t D) {
    extern __shared__ __align__(128) unsigned char bytes[];
    const Sizes sizes = {static_cast<int>(S), static_cast<int>(H), static_cast<int>(D),
                         static_cast<int>(S + MMA_TILE - 1) / MMA_TILE};
    const int b = blockIdx.x / sizes.H, h = blockIdx.x % sizes.H, E = sizes.H * sizes.D;
    const int64_t first = b * S * E + h * D;  // in y
    const act* const q = qkv + 3 * b * S * E + h * D;
    bf16 *const queries = reinterpret_cast<bf16*>(bytes), *const keys = queries + sizes.tiles * TILE,
                *const values = keys + sizes.tiles * TILE;
    for (int i = threadIdx.x; i < sizes.tiles * MMA_TILE * CHUNKS; i += blockDim.x) {
        const Chunk chunk(i, sizes);
        chunk.copy(queries, q, 3 * E);
        chunk.copy(keys, q + E, 3 * E);
        chunk.copy(values, q + 2 * E, 3 * E);
    }
    copies_commit();
    copies_wait<0>();
    __syncthreads();

    const OwnTiles own;
    const float scale = LOG2_E / sqrtf(static_cast<float>(D));
#pragma unroll 1
    for (int turn = 0; turn < 2 && own[turn] < sizes.tiles; ++turn) {
        const int query = own[turn] * MMA_TILE;
        const Head::Resident resident(queries, query);
        OnlineSoftmax softmax;
        int at = 0;
#pragma unroll 1
        for (; at + Head::STREAMED_ROWS <= query; at += Head::STREAMED_ROWS)
            visit(softmax, resident, keys, values, query, at, AllMmaTiles{}, scale);
        visit(softmax, resident, keys, values, query, at, SomeMmaTiles{0, (query - at) / MMA_TILE + 1}, scale);
        float factor[Mma::SLOTS];
#pragma unroll
        for (int slot = 0; slot < Mma::SLOTS; ++slot) {
            const int row = query + Mma::row(slot);
            float of_row;
            factor[slot] = softmax.finish(slot, of_row);
            if (Mma::column(0) == 0 && row < S) logsumexp[blockIdx.x * S + row] = of_row;
        }
        store_rows(y + first, E, softmax.out, factor, own[turn], sizes);
    }
}

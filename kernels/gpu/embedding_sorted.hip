// embedding_backward and token_embedding_backward for many tokens: formulas and layouts as in embedding.hip.
//
// The rows of dx are sorted by token, so that many blocks share the rows of a frequent one. Four phases, a launch each:
//   SORT_CHUNKS  a block sorts CHUNK tokens by (id, row). Grid ceil(N / CHUNK). Batcher 1968, "Sorting networks and their
//                applications".
//   RANK         a thread looks for its token's place among all: its place in its chunk, and the number of tokens before
//                it in every other chunk, by binary search. Grid N padded to whole chunks / EMBEDDING_THREADS.
//   SUM_TILES    a block adds TILE neighbours in this order, a run of equal ids after another, and each run to its row of
//                the table. The first run of a tile may continue the tile before, and its last run may continue in the
//                next one: their sums go to `partials`. Further S blocks of embedding_backward own a position each.
//                Grid tiles + S.
//   ADD_RUNS     the block of the tile in which such a run begins adds its sums, tile by tile. Grid tiles.
// No two blocks add to the same number, and the order of every sum is fixed. Minimum traffic as in embedding.hip.
#include "gpu/simt/vector_io.h"
#include "gpu/simt/sorted_tokens.h"

constexpr int IN_FLIGHT = 8;  // rows of dx whose loads are issued together, because one load's latency is long

// table[id] += sum of the rows of dx from each run of tokens, for the W channels of a thread from c on.
template <int W>
DEVICE void sum_tile(const SortedTokens& sorted, const Tile& tile, float* table, const act* dx, int64_t c, int64_t C) {
    const bool continues_before = tile.continues_before(), continues_after = tile.continues_after();
    float sum[W] = {};
    bool is_first_run = true;
    for (int begin = 0; begin < tile.count; begin += IN_FLIGHT) {
        float rows[IN_FLIGHT][W];
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i)
            if (begin + i < tile.count) load(rows[i], dx + tile.row(begin + i) * C + c);
#pragma unroll
        for (int i = 0; i < IN_FLIGHT; ++i) {
            const int at = begin + i;
            if (at >= tile.count) continue;
            for (int e = 0; e < W; ++e) sum[e] += rows[i][e];
            const uint32_t id = tile.id(at);
            if (at + 1 < tile.count && tile.id(at + 1) == id) continue;
            if (is_first_run && continues_before) {
                store(sorted.partials + tile.index * 2 * C + c, sum);
            } else if (at + 1 == tile.count && continues_after) {
                store(sorted.partials + (tile.index * 2 + 1) * C + c, sum);
            } else {
                float before[W];
                load(before, table + id * C + c);
                for (int e = 0; e < W; ++e) before[e] += sum[e];
                store(table + id * C + c, before);
            }
            for (float& each : sum) each = 0.0f;
            is_first_run = false;
        }
    }
}

template <int W>
DEVICE void add_runs(const SortedTokens& sorted, const Tile& tile, float* table, int64_t c, int64_t C) {
    const uint32_t id = tile.id(tile.count - 1);
    float sum[W], others[W];
    load(sum, sorted.partials + (tile.index * 2 + 1) * C + c);
    for (int64_t next = tile.index + 1; next * TILE < sorted.N && sorted.ids[next * TILE] == id; ++next) {
        load(others, sorted.partials + next * 2 * C + c);
        for (int e = 0; e < W; ++e) sum[e] += others[e];
    }
    load(others, table + id * C + c);
    for (int e = 0; e < W; ++e) others[e] += sum[e];
    store(table + id * C + c, others);
}

template <int W>
DEVICE void sum_position(float* table, const act* dx, int64_t s, int64_t B, int64_t S, int64_t c, int64_t C) {
    float sum[W], row[W];
    load(sum, table + s * C + c);
#pragma unroll 8
    for (int64_t b = 0; b < B; ++b) {
        load(row, dx + (b * S + s) * C + c);
        for (int e = 0; e < W; ++e) sum[e] += row[e];
    }
    store(table + s * C + c, sum);
}

// One of the last two phases, W channels a thread.
template <int W>
DEVICE void add_gradients(const SortedTokens& sorted, float* dtoken_table, float* dposition_table, const act* dx,
                          int64_t B, int64_t S, int64_t C, int32_t phase) {
    const int64_t tiles = (sorted.N + TILE - 1) / TILE;
    if (blockIdx.x >= tiles) {
        for (int64_t c = threadIdx.x * W; c < C; c += EMBEDDING_THREADS * W)
            sum_position<W>(dposition_table, dx, blockIdx.x - tiles, B, S, c, C);
        return;
    }
    __shared__ TileMemory memory;
    const Tile tile(memory, sorted, blockIdx.x);
    if (phase == ADD_RUNS && !tile.begins_a_long_run()) return;
    for (int64_t c = threadIdx.x * W; c < C; c += EMBEDDING_THREADS * W)
        if (phase == SUM_TILES)
            sum_tile<W>(sorted, tile, dtoken_table, dx, c, C);
        else
            add_runs<W>(sorted, tile, dtoken_table, c, C);
}

DEVICE void run_phase(const SortedTokens& sorted, float* dtoken_table, float* dposition_table, const act* dx,
                      const int32_t* tokens, int64_t B, int64_t S, int64_t C, int32_t phase) {
    if (phase == SORT_CHUNKS)
        sorted.sort_chunk(tokens);
    else if (phase == RANK)
        sorted.rank();
    else if (is_wide(C))
        add_gradients<WIDTH>(sorted, dtoken_table, dposition_table, dx, B, S, C, phase);
    else
        add_gradients<1>(sorted, dtoken_table, dposition_table, dx, B, S, C, phase);
}

KERNEL(EMBEDDING_THREADS)
embedding_backward(float* dtoken_table, float* dposition_table, const act* dx, const int32_t* tokens, int64_t V,
                   int64_t C, int64_t T, int64_t B, int64_t S, uint32_t* workspace, int32_t phase) {
    run_phase(SortedTokens(workspace, B * S), dtoken_table, dposition_table, dx, tokens, B, S, C, phase);
}

KERNEL(EMBEDDING_THREADS)
token_embedding_backward(float* dtoken_table, const act* dx, const int32_t* tokens, int64_t V, int64_t C, int64_t N,
                         uint32_t* workspace, int32_t phase) {
    run_phase(SortedTokens(workspace, N), dtoken_table, nullptr, dx, tokens, 1, N, C, phase);
}

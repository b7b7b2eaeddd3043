// The epilogue of a GEMM whose sums are in the registers of a warpgroup, as wgmma.h says: 64 rows by TMA_COLUMNS. Each
// thread has pairs of neighbours, which the fused operation of epilogue.h combines. Outputs in bf16 go through
// STAGING_BOXES boxes of 64 x 64 in shared memory, from where the copy engine stores them while the warpgroup continues.
#pragma once
#include "gpu/hopper/tensor_map.h"
#include "gpu/mma/shared_tile.h"
#include "gpu/gemm/epilogue.h"

constexpr int BOX = 64 * 64, STAGING_BOXES = 2;  // elements; boxes of a warpgroup

struct TmaEpilogue {
    int first_row, first_column;  // the warpgroup's place in C
    int64_t M, N;                 // of C; N is a multiple of WIDTH

    // The row of a lane's pairs of half h, and the column of its pairs of a group of 8 columns, in the warpgroup's tile.
    static DEVICE_MEMBER int row(int h) { return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * h; }
    static DEVICE_MEMBER int column(int group) { return group * 8 + threadIdx.x % 4 * 2; }

    DEVICE_MEMBER bool inside(int h, int group) const {
        return first_row + row(h) < M && first_column + column(group) < N;
    }

    template <class Operation>
    DEVICE_MEMBER auto fetch(int h, int group, const Operation& operation) const {
        using Fetched = decltype(operation.template fetch<2>(0, 0, 2, true));
        if (!inside(h, group)) return Fetched{};
        return operation.template fetch<2>(first_row + row(h), first_column + column(group), 2, true);
    }

    // Stores GROUPS groups of 8 columns from `group` on straight to memory; sums: 4 of a thread's per group.
    template <int GROUPS, class Operation>
    DEVICE_MEMBER void store(const float* sums, int group, const Operation& operation) const {
        decltype(fetch(0, 0, operation)) fetched[GROUPS][2];
#pragma unroll
        for (int g = 0; g < GROUPS; ++g)
#pragma unroll
            for (int h = 0; h < 2; ++h) fetched[g][h] = fetch(h, group + g, operation);
#pragma unroll
        for (int g = 0; g < GROUPS; ++g)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const Values<2> pair = {{sums[4 * g + 2 * h], sums[4 * g + 2 * h + 1]}};
                if (inside(h, group + g))
                    operation.store(first_row + row(h), first_column + column(group + g), pair, fetched[g][h], 2, true);
            }
    }

    // What a thread's sums will be combined with: a pair for each group of 8 columns and each half of its rows.
    template <class Source, int ROWS = Source::ROWS>
    struct Prefetched {
        decltype(Source{}.packed(0, 0)) pairs[TMA_COLUMNS / 8];

        DEVICE_MEMBER void load(const TmaEpilogue& out, const Source& source) {
#pragma unroll
            for (int g = 0; g < TMA_COLUMNS / 8; ++g) {
                pairs[g] = {};
                if (out.inside(0, g)) pairs[g] = source.packed(0, out.first_column + column(g));
            }
        }
        DEVICE_MEMBER void exchange() {}
        DEVICE_MEMBER auto pair(int, int group) const { return pairs[group]; }
    };

    // Of a matrix, the four threads that share a row load 16 bytes of it each, a whole group of 8 columns. That takes a
    // quarter of the loads of pairs. Afterwards each gets its pair of every group from the others.
    template <class Source>
    struct Prefetched<Source, 2> {
        Vector vectors[2][TMA_COLUMNS / 32];  // word p is the pair of group 4 j + p, after `exchange`

        DEVICE_MEMBER void load(const TmaEpilogue& out, const Source& source) {
#pragma unroll
            for (int h = 0; h < 2; ++h)
#pragma unroll
                for (int j = 0; j < TMA_COLUMNS / 32; ++j) {
                    const int group = 4 * j + threadIdx.x % 4;
                    vectors[h][j] = {};
                    if (out.inside(h, group))
                        vectors[h][j] = source.vector(out.first_row + row(h), out.first_column + group * 8);
                }
        }

        DEVICE_MEMBER void exchange() {
#pragma unroll
            for (int h = 0; h < 2; ++h)
#pragma unroll
                for (int j = 0; j < TMA_COLUMNS / 32; ++j) transpose_words(vectors[h][j]);
        }
        DEVICE_MEMBER PackedPair pair(int h, int group) const { return {vectors[h][group / 4].word[group % 4]}; }
    };

    // Stores 64 columns from group `group` on through the staging boxes of this warpgroup; sums: 32 of a thread's.
    // named_barrier: of the warpgroup.
    template <class Operation, class Fetched>
    DEVICE_MEMBER void store_boxes(const float* sums, const Fetched& fetched, int group, bf16* staging,
                                   int named_barrier, const TensorMap* const (&targets)[Operation::OUTPUTS],
                                   const Operation& operation) const {
        constexpr int OUTPUTS = Operation::OUTPUTS, TURNS = STAGING_BOXES / OUTPUTS, PAIRS = 16;
        bf16* boxes = staging + group / 8 % TURNS * OUTPUTS * BOX;
        uint32_t packed[OUTPUTS][PAIRS];
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            float outputs[2][OUTPUTS];
            const auto pair = fetched.pair(i % 2, group + i / 2);
#pragma unroll
            for (int e = 0; e < 2; ++e)
                operation.element(first_row + row(i % 2), first_column + column(group + i / 2) + e, sums[2 * i + e],
                                  pair[e], outputs[e]);
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) packed[o][i] = bf16_pair(outputs[0][o], outputs[1][o]);
        }
        if (threadIdx.x % 128 == 0) stores_wait<TURNS - 1>();
        barrier_of_threads(named_barrier, 128);
#pragma unroll
        for (int i = 0; i < PAIRS; ++i) {
            bf16* target = boxes + SharedTile<8>::offset(row(i % 2), i / 2) + threadIdx.x % 4 * 2;
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) *reinterpret_cast<uint32_t*>(target + o * BOX) = packed[o][i];
        }
        fence_shared();
        barrier_of_threads(named_barrier, 128);
        if (threadIdx.x % 128 == 0) {
#pragma unroll
            for (int o = 0; o < OUTPUTS; ++o) targets[o]->store(boxes + o * BOX, first_row, first_column + group * 8);
            stores_commit();
        }
    }
};

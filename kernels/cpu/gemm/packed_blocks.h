// The loops of a GEMM around its macro-kernel: A (M, K) and B (K, N) in packed blocks, on all threads.
//
//   for NC columns, for KC terms:        the threads pack a block of B together, so that none packs it again
//       for MC rows:                     a thread packs its own rows of A, if they fit once for all columns, or reads
//                                        them in place
//           consume(block)               multiplies them: the caller decides where the sums go
//
// The threads form a grid over the rows and columns of C. A thread owns its part of C, and each sum runs over k upwards,
// so no result depends on the number of threads.
// Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication"; Smith et al. 2014, "Anatomy of
// high-performance many-threaded matrix multiplication" (shared packed blocks).
#pragma once
#include "cpu/gemm/matrix.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/gemm_tile.h"
#include "cpu/simd/vector.h"
#include <memory>
#include <vector>

// MC x KC of A and a buffer of KC x NC of B stay in L2, where NC is as many columns as PACKED_B_WORDS hold.
constexpr int64_t KC = SPLITS > 1 ? 512 : 1024, MC = 96, PACKED_B_WORDS = 1 << 18;
// Up to 16 MB of packed rows of A wait for the next columns: reading them takes less time than splitting f32 again.
constexpr int64_t PACKED_A_WORDS = 1 << 22;
// Sums of a GEMM whose epilogue needs all K terms, if K > KC. B is packed again for each SUM_ROWS rows. For AMX more than
// 512 were not measured.
constexpr int64_t SUM_ROWS = (SUMS_IN_REGISTERS ? 1032 : 512) / MR * MR, SUM_COLUMNS = 256;
static_assert(SUM_COLUMNS / NR * b_panel_size(KC) <= PACKED_B_WORDS && MC % MR == 0);
static_assert(packed_a_size(MC, KC) <= PACKED_A_WORDS);
constexpr int64_t MIN_TEAM_MULTIPLICATIONS = 200000;  // a thread is worth waking for so many
// Estimates: as many multiplications take as long as loading an element of B that another thread packed, or as packing one
// of A. They lie between those of a vector tile and of AMX in bf16, which multiply at rates that differ tenfold.
constexpr int64_t LOAD_OF_B = 64, LOAD_OF_A = 192;

// A thread's memory, reused by all its GEMMs.
struct Workspace {
    alignas(64) PackedWord packed_a[PACKED_A_WORDS], packed_b[2][PACKED_B_WORDS];
    alignas(64) float sums[SUM_ROWS * SUM_COLUMNS];
    std::vector<PackedA> blocks_of_a;  // in the order of the loops
};
static Workspace& workspace_of_this_thread() {
    static thread_local std::unique_ptr<Workspace> workspace;
    if (!workspace) workspace.reset(new Workspace);
    return *workspace;
}

// How many terms, columns and rows of a GEMM are taken at once: KC, NC and, for sums over several passes, SUM_ROWS.
struct BlockSizes {
    int64_t terms, columns, rows;
};

// A (rows, terms) from (row, k) on, and B (terms, columns) from (k, column) on. sum_row: row in the block of SUM_ROWS.
struct PackedBlock {
    PackedA a;
    const PackedWord* b;
    int64_t row, rows, column, columns, k, terms, sum_row;
};

// Nothing to do with a block of A besides multiplying it.
struct NothingElse {
    void operator()(const PackedBlock&) const {}
};

// A[row:row + rows, k:k + terms] as the tile reads it: in place, or packed into `copy`.
inline PackedA pack_a_block(const Matrix& a, PackedWord* copy, int64_t row, int64_t rows, int64_t k, int64_t terms) {
    return pack_a(copy, {a.at(row, k), a.row_stride, a.column_stride}, rows, terms);
}

// A team's threads as a grid over C: threads of one column of the grid share the packed columns of B.
struct Grid {
    Team rows, columns;

    // The grid whose busiest thread has least to multiply and to load. Ties go to the higher grid. Each thread loads A for
    // its rows and B for its columns, so for many threads nearly square parts are best.
    Grid(Team team, int64_t M, int64_t N) {
        int64_t least = INT64_MAX;
        for (int64_t height = team.size; height > 0; --height) {
            const Team down{team.rank % height, height}, across{team.rank / height, team.size / height};
            const int64_t most_rows = down.largest_part(M, MR), most_columns = across.largest_part(N, NR);
            const int64_t work = most_rows * most_columns + LOAD_OF_A * most_rows + LOAD_OF_B * most_columns;
            if (work < least) {
                least = work;
                rows = down;
                columns = across;
            }
        }
    }
};

// How many threads a GEMM is worth.
inline int64_t team_size(int64_t M, int64_t N, int64_t K) {
    return std::clamp<int64_t>(M * N * K / MIN_TEAM_MULTIPLICATIONS, 1, thread_count());
}

template <class A, class Consume>
static void for_packed_blocks(Team team, int64_t M, int64_t N, int64_t K, BlockSizes sizes, const A& a, Matrix b,
                              std::vector<Workspace*>& workspaces, const Consume& consume) {
    Workspace& work = *(workspaces[team.rank] = &workspace_of_this_thread());
    begin_tiles();
    team.wait();
    const Grid grid(team, M, N);
    const Team::Range rows = grid.rows.part(M, MR), columns = grid.columns.part(N, NR);
    const int64_t most_rows = grid.rows.largest_part(M, MR), most_columns = grid.columns.largest_part(N, NR);
    // A thread packs its share of the next block of B while others still read this one, so a team has two.
    auto& buffers = workspaces[team.rank - grid.rows.rank]->packed_b;
    int64_t turn = 0;
    const int64_t own_rows = rows.end - rows.begin;
    const bool keeps_a = most_columns > sizes.columns && packed_a_size(own_rows, K) <= PACKED_A_WORDS;
    work.blocks_of_a.clear();
    const int64_t row_blocks = (most_rows + sizes.rows - 1) / sizes.rows;
    const int64_t block_rows = padded((most_rows + row_blocks - 1) / row_blocks, MR);
    for (int64_t left = 0; left < most_columns; left += sizes.columns) {
        auto kept = work.blocks_of_a.begin();
        for (int64_t upper = 0; upper < most_rows; upper += block_rows)
            for (int64_t k = 0; k < K; k += sizes.terms) {
                const int64_t terms = std::min(K - k, sizes.terms), first = columns.begin + left;
                const int64_t width = std::clamp<int64_t>(columns.end - first, 0, sizes.columns);
                const Team::Range share = grid.rows.part(width, NR);
                PackedWord* const packed_b = buffers[team.size > 1 ? turn++ % 2 : 0];
                if (share.begin < share.end)
                    pack_b(packed_b + share.begin / NR * b_panel_size(terms),
                           {b.at(k, first + share.begin), b.row_stride, b.column_stride}, terms,
                           share.end - share.begin);
                team.wait();
                const int64_t top = rows.begin + upper, last = width ? std::min(rows.end, top + block_rows) : 0;
                for (int64_t row = top; row < last; row += MC) {
                    const int64_t height = std::min(MC, last - row);
                    const auto pack = [&] {
                        const int64_t offset = packed_a_size(own_rows, k) + packed_a_size(row - rows.begin, terms);
                        return pack_a_block(a, work.packed_a + (keeps_a ? offset : 0), row, height, k, terms);
                    };
                    const PackedA packed_a = keeps_a && left > 0 ? *kept++ : pack();
                    if (keeps_a && left == 0) work.blocks_of_a.push_back(packed_a);
                    consume(work, PackedBlock{packed_a, packed_b, row, height, first, width, k, terms, row - top});
                }
            }
    }
}

// Calls consume(workspace, block) for all blocks, on as many threads as the GEMM is worth.
template <class A, class Consume>
static void for_packed_blocks(int64_t M, int64_t N, int64_t K, BlockSizes sizes, const A& a, Matrix b,
                              const Consume& consume) {
    const int64_t size = team_size(M, N, K);
    std::vector<Workspace*> workspaces(thread_count());
    parallel_team(size, [&](Team team) { for_packed_blocks(team, M, N, K, sizes, a, b, workspaces, consume); });
}

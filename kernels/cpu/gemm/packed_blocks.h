// The loops of a GEMM around its macro-kernel: A (M, K) and B (K, N) in packed blocks, on all threads.
//
//   for NC columns, for some rows, for KC terms:   the threads pack a block of B together, so that none packs it again
//       for tasks of a few rows:                   pack A, if it fits once for all columns, or read it in place
//           consume(block)                         multiplies them: the caller decides where the sums go
//
// The threads form a grid over the rows and columns of C. Each sum runs over k upwards, also where several threads add to it
// in turn, so no result depends on the number of threads.
// Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication"; Smith et al. 2014, "Anatomy of
// high-performance many-threaded matrix multiplication" (shared packed blocks).
#pragma once
#include "cpu/gemm/matrix.h"
#include "cpu/runtime/parallel.h"
#include "cpu/runtime/rounds.h"
#include "cpu/select/gemm_tile.h"
#include "cpu/simd/vector.h"
#include <memory>
#include <optional>
#include <vector>

// MC x KC of A and a buffer of KC x NC of B stay in L2, where NC is as many columns as PACKED_B_WORDS hold.
constexpr int64_t KC = SPLITS > 1 ? 512 : 1024, MC = 96, PACKED_B_WORDS = 1 << 18;
// So many terms take one pass. With splits, passes of 512 and 256 would store and load the sums, and pack B twice.
constexpr int64_t MOST_TERMS_OF_ONE_PASS = SPLITS > 1 ? 768 : KC;
// Up to 32 MB of packed rows of A wait for the next columns: reading them takes less time than splitting f32 again. A thread
// keeps this memory until the process ends.
constexpr int64_t PACKED_A_WORDS = 1 << 23;
// Sums of a GEMM whose epilogue needs all K terms, if there are several passes. B is packed again for each SUM_ROWS rows.
constexpr int64_t SUM_ROWS = (SUMS_IN_REGISTERS ? 1032 : 512) / MR * MR, SUM_COLUMNS = 256;
static_assert(SUM_COLUMNS / NR * b_panel_size(KC) <= PACKED_B_WORDS && MC % MR == 0);
static_assert(packed_a_size(MC, MOST_TERMS_OF_ONE_PASS) <= PACKED_A_WORDS);
constexpr int64_t MIN_TEAM_MULTIPLICATIONS = 200000;  // a thread is worth waking for so many
// Estimates: as many multiplications take as long as loading an element of B that another thread packed, or as packing one
// of A. They lie between those of a vector tile and of AMX in bf16, which multiply at rates that differ tenfold.
constexpr int64_t LOAD_OF_B = 64, LOAD_OF_A = 192;

// A thread's memory, reused by all its GEMMs.
struct Workspace {
    alignas(64) PackedWord packed_a[PACKED_A_WORDS], packed_b[MOST_BUFFERS][PACKED_B_WORDS];
    alignas(64) float sums[SUM_ROWS * SUM_COLUMNS];
    std::vector<PackedA> stored_a;  // by task
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

// A (rows, terms) from (row, k) on, and B (terms, columns) from (k, column) on. sums: room for (rows, SUM_COLUMNS), the same
// for all k; null if a GEMM takes more than SUM_ROWS rows at once.
struct PackedBlock {
    PackedA a;
    const PackedWord* b;
    float* sums;
    int64_t row, rows, column, columns, k, terms;
};

// Nothing to do with a block of A besides multiplying it.
struct NothingElse {
    void operator()(const PackedBlock&) const {}
};

// A[row:row + rows, k:k + terms] as the tile reads it: see pack_a.
inline PackedA pack_a_block(const Matrix& a, PackedWord* copy, int64_t row, int64_t rows, int64_t k, int64_t terms,
                            int64_t columns) {
    return pack_a(copy, {a.at(row, k), a.row_stride, a.column_stride}, rows, terms, columns);
}

// A team's threads as a grid over C: those of one column of the grid share the packed columns of B.
struct Grid {
    int64_t height = 1, width = 1;

    // The grid whose busiest thread has least to multiply and to load. Ties go to the higher grid. Each thread loads A for
    // its rows and B for its columns, so for many threads nearly square parts are best.
    Grid(int64_t threads, int64_t M, int64_t N) {
        int64_t least = INT64_MAX;
        for (int64_t high = threads; high > 0; --high) {
            const int64_t wide = threads / high;
            const int64_t most_rows = Team{0, high}.largest_part(M, MR),
                          most_columns = Team{0, wide}.largest_part(N, NR);
            const int64_t work = most_rows * most_columns + LOAD_OF_A * most_rows + LOAD_OF_B * most_columns;
            if (work < least) {
                least = work;
                height = high;
                width = wide;
            }
        }
    }

    int64_t threads() const { return height * width; }
    // A thread among those with the same columns, and among those with the same rows.
    Team down(int64_t thread) const { return {thread % height, height}; }
    Team across(int64_t thread) const { return {thread / height, width}; }
};

// How many threads a GEMM is worth.
inline int64_t team_size(int64_t M, int64_t N, int64_t K) {
    return std::clamp<int64_t>(M * N * K / MIN_TEAM_MULTIPLICATIONS, 1, thread_count());
}

// How the rows of each thread are cut: into blocks, for which B is packed, and these into tasks.
struct RowTasks {
    int64_t blocks, block_rows, task_rows, tasks_of_block;

    RowTasks(Team team, int64_t most_rows, int64_t rows_at_once) {
        blocks = quotient_up(most_rows, rows_at_once);
        block_rows = padded(quotient_up(most_rows, blocks), MR);
        const int64_t wanted = team.size == 1 ? MC : block_rows / TASKS_OF_THREAD;
        task_rows = std::clamp<int64_t>(wanted / MR, 1, MC / MR) * MR;
        tasks_of_block = quotient_up(block_rows, task_rows);
    }
};

// The workspaces of a GEMM's threads, and their rounds: one round for each block of B.
struct SharedWork {
    std::vector<Workspace*> workspaces;
    std::optional<Rounds> rounds;

    explicit SharedWork(int64_t threads) : workspaces(threads) {}
};

// A GEMM as one thread of a team sees it.
template <class A, class Consume>
class PackedGemm {
   public:
    PackedGemm(Team team, int64_t M, int64_t N, int64_t K, BlockSizes sizes, const A& a, Matrix b, SharedWork& shared,
               const Consume& consume)
        : team(team),
          grid(team.size, M, N),
          row_tasks(team, grid.down(0).largest_part(M, MR), sizes.rows),
          M(M),
          N(N),
          K(K),
          passes(quotient_up(K, sizes.terms)),
          most_columns(grid.across(0).largest_part(N, NR)),
          stored_words(packed_a_size(row_tasks.task_rows, std::min(K, sizes.terms))),
          stored_tasks(row_tasks.blocks * passes * row_tasks.tasks_of_block),
          stores_a(most_columns > sizes.columns && stored_tasks * stored_words <= PACKED_A_WORDS),
          sizes(sizes),
          a(a),
          b(b),
          shared(shared),
          consume(consume),
          own(workspace_of_this_thread()) {
        if (stores_a) own.stored_a.resize(stored_tasks);
        shared.workspaces[team.rank] = &own;
        if (team.rank == 0) shared.rounds.emplace(team, grid.threads(), packing_tasks(team), row_tasks.tasks_of_block);
    }

    void run() const {
        begin_tiles();
        team.wait();
        Step step{};
        for (step.left = 0; step.left < most_columns; step.left += sizes.columns)
            for (step.row_block = 0; step.row_block < row_tasks.blocks; ++step.row_block)
                for (step.pass = 0; step.pass < passes; ++step.pass, ++step.round)
                    shared.rounds->run(
                        team, step.round, [&](int64_t owner, int64_t task) { pack(step, owner, task); },
                        [&](int64_t owner, int64_t task) { multiply(step, owner, task); });
    }

   private:
    // One round of the loops. left: columns that each thread has done.
    struct Step {
        int64_t left, row_block, pass, round;
    };
    int64_t first_k(const Step& step) const { return step.pass * sizes.terms; }
    int64_t terms(const Step& step) const { return std::min(sizes.terms, K - first_k(step)); }
    Team::Range columns_of(const Step& step, int64_t thread) const {
        const Team::Range all = grid.across(thread).part(N, NR);
        return {std::min(all.begin + step.left, all.end), std::min(all.begin + step.left + sizes.columns, all.end)};
    }
    PackedWord* packed_b_of(const Step& step, int64_t thread) const {
        return shared.workspaces[thread - grid.down(thread).rank]->packed_b[shared.rounds->buffer_of(step.round)];
    }

    // Packs some of the columns that a thread packs for all threads with the same columns.
    void pack(const Step& step, int64_t owner, int64_t task) const {
        const Team::Range columns = columns_of(step, owner);
        const int64_t each = packing_tasks(team);
        const Team tasks{grid.down(owner).rank * each + task, grid.height * each};
        const Team::Range part = tasks.part(columns.end - columns.begin, NR);
        if (part.begin == part.end) return;
        pack_b(packed_b_of(step, owner) + part.begin / NR * b_panel_size(terms(step)),
               {b.at(first_k(step), columns.begin + part.begin), b.row_stride, b.column_stride}, terms(step),
               part.end - part.begin);
    }

    // Multiplies some of a thread's rows. The owner's workspace stores them, no matter which thread packs them.
    void multiply(const Step& step, int64_t owner, int64_t task) const {
        const Team::Range all = grid.down(owner).part(M, MR), columns = columns_of(step, owner);
        const int64_t top = all.begin + step.row_block * row_tasks.block_rows, row = top + task * row_tasks.task_rows;
        const int64_t rows = std::min({all.end, top + row_tasks.block_rows, row + row_tasks.task_rows}) - row;
        if (rows <= 0 || columns.begin == columns.end) return;
        Workspace& owned = *shared.workspaces[owner];
        const int64_t index = (step.row_block * passes + step.pass) * row_tasks.tasks_of_block + task;
        PackedWord* const copy = stores_a ? owned.packed_a + index * stored_words : own.packed_a;
        PackedA packed;
        PackedA& packed_rows = stores_a ? owned.stored_a[index] : packed;
        if (!stores_a || step.left == 0)
            packed_rows = pack_a_block(a, copy, row, rows, first_k(step), terms(step), most_columns);
        float* const sums = row_tasks.block_rows <= SUM_ROWS ? owned.sums + (row - top) * SUM_COLUMNS : nullptr;
        consume(own, PackedBlock{packed_rows, packed_b_of(step, owner), sums, row, rows, columns.begin,
                                 columns.end - columns.begin, first_k(step), terms(step)});
    }

    const Team team;
    const Grid grid;
    const RowTasks row_tasks;
    const int64_t M, N, K, passes, most_columns;
    const int64_t stored_words, stored_tasks;  // of packed A: of a task, and of a thread
    const bool stores_a;                       // for all columns
    const BlockSizes sizes;
    const A& a;
    const Matrix b;
    SharedWork& shared;
    const Consume& consume;
    Workspace& own;
};

// Calls consume(workspace, block) for all blocks, on as many threads as the GEMM is worth.
template <class A, class Consume>
static void for_packed_blocks(int64_t M, int64_t N, int64_t K, BlockSizes sizes, const A& a, Matrix b,
                              const Consume& consume) {
    const int64_t size = team_size(M, N, K);
    SharedWork shared(size == 1 ? 1 : thread_count());
    parallel_team(size, [&](Team team) { PackedGemm<A, Consume>(team, M, N, K, sizes, a, b, shared, consume).run(); });
}

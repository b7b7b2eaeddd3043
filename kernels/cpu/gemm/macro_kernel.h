// The macro-kernel: packed A times packed B, tile by tile, on one thread. The including file defines the tile.
#pragma once
#include "cpu/runtime/parallel.h"
#include <algorithm>

// Into how many tasks a thread's packing is cut.
inline int64_t packing_tasks(Team team) { return team.size == 1 ? 1 : 4; }

// The most packed words that pack_a writes for A (rows, K).
constexpr int64_t packed_a_size(int64_t rows, int64_t K) {
    return padded(rows, MR) / MR * padded(MR) * padded(K, 2 * LANES) / WORD_TERMS * SPLITS;
}

// A[0:rows, 0:K] as the tile reads it: in place, or packed into `copy`. columns: of B, by which it is multiplied.
inline PackedA pack_a(PackedWord* copy, const Matrix& a, int64_t rows, int64_t K, int64_t columns) {
    return reads_in_place(a, rows, K, columns) ? a_in_place(a) : copy_a(copy, a, rows, K);
}

// The same by several threads: pack_part_of_a writes one of `parts` parts of the copy, and whole_a is all of them.
inline void pack_part_of_a(int64_t part, int64_t parts, PackedWord* copy, const Matrix& a, int64_t rows, int64_t K,
                           int64_t columns) {
    if (reads_in_place(a, rows, K, columns)) return;
    const Team::Range own = Team{part, parts}.part(rows, MR);
    copy_a(copy + own.begin / MR * a_panel_size(K), {a.at(own.begin, 0), a.row_stride, a.column_stride},
           own.end - own.begin, K);
}
inline PackedA whole_a(PackedWord* copy, const Matrix& a, int64_t rows, int64_t K, int64_t columns) {
    return reads_in_place(a, rows, K, columns) ? a_in_place(a) : copy_a(copy, a, 0, K);  // copies no row
}

// Packs B[0:K, 0:columns] into B micro-panels, filled with zeros.
__attribute__((noinline)) static void pack_b(PackedWord* b_panels, Matrix b, int64_t K, int64_t columns) {
    const Matrix lines = {b.data, b.column_stride, b.row_stride};
    const int64_t words = b_panel_size(K) / NR / SPLITS;
    pack_micro_panels(b_panels, NR, b_panel_size(K), WordSource{lines, columns, K}, columns, words);
}

// The row of B that holds the first term of a word of a B micro-panel; the row of the second is TERM_DISTANCE further.
constexpr int64_t first_term(int64_t word) {
    return word / TERM_DISTANCE * TERM_DISTANCE * WORD_TERMS + word % TERM_DISTANCE;
}

// Puts word `word` of LANES columns from `column` on into a B micro-panel; x and y: the first and the second terms.
inline void put_b_words(PackedWord* b_panel, int64_t word, int64_t column, Vector x, Vector y) {
    const WordVector words = words_from_terms(x, y);
    PackedWord* const target = b_panel + (word / LANES * SPLITS * LANES + word % LANES) * NR + column;
    for (int split = 0; split < SPLITS; ++split) vector_at(target + split * LANES * NR) = words.split[split];
}

// No work to interleave with a GEMM.
struct NoInterleave {
    void operator()() const {}
};

// sums (rows, columns), rows `stride` apart, = A B over K terms, or += if `accumulate`. B micro-panels are
// b_panel_words apart, because they may have more terms than K. `sums` has room for whole tiles: rows up to a multiple
// of MR, columns up to a multiple of NR. interleave() is called once or more per tile: vector work that takes no time
// while AMX multiplies.
template <class Interleave = NoInterleave>
inline void multiply(PackedA a, const PackedWord* b_panels, int64_t b_panel_words, float* sums, int64_t stride,
                     int64_t rows, int64_t columns, int64_t K, bool accumulate,
                     Interleave&& interleave = NoInterleave()) {
    for (int64_t row = 0; row < rows; row += MR, a.data += a.panel_stride)
        for (int64_t column = 0; column < columns; column += NR)
            multiply_tile(std::min<int64_t>(MR, rows - row), columns - column, K, a,
                          b_panels + column / NR * b_panel_words, sums + row * stride + column, stride, accumulate,
                          interleave);
}

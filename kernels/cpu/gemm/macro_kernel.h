// The macro-kernel: packed A times packed B, tile by tile, on one thread. The including file defines the tile.
#pragma once
#include "cpu/runtime/parallel.h"
#include <algorithm>

// The most packed words that pack_a writes for A (rows, K).
constexpr int64_t packed_a_size(int64_t rows, int64_t K) {
    return padded(rows, MR) / MR * padded(MR) * padded(K, 2 * LANES) / WORD_TERMS * SPLITS;
}

// A[0:rows, 0:K] as the tile reads it: in place, or packed into `copy`.
inline PackedA pack_a(PackedWord* copy, const Matrix& a, int64_t rows, int64_t K) {
    return reads_in_place(a, rows, K) ? a_in_place(a) : copy_a(copy, a, rows, K);
}

// The same for all threads of a team, each of which packs its share of `copy`. They must wait before they read it.
inline PackedA pack_a_together(Team team, PackedWord* copy, const Matrix& a, int64_t rows, int64_t K) {
    if (reads_in_place(a, rows, K)) return a_in_place(a);
    const Team::Range share = team.part(rows, MR);
    const Matrix own = {a.at(share.begin, 0), a.row_stride, a.column_stride};
    PackedA packed = copy_a(copy + share.begin / MR * a_panel_size(K), own, share.end - share.begin, K);
    packed.data = reinterpret_cast<const char*>(copy);
    return packed;
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
//
// TILE_K terms of a B micro-panel stay in L1 for all rows, those of an A micro-panel for all columns.
template <class Interleave = NoInterleave>
inline void multiply(PackedA a, const PackedWord* b_panels, int64_t b_panel_words, float* sums, int64_t stride,
                     int64_t rows, int64_t columns, int64_t K, bool accumulate,
                     Interleave&& interleave = NoInterleave()) {
    for (int64_t k = 0; k < K; k += TILE_K, a.data += TILE_K / K_STEP * a.step_stride) {
        PackedA a_panel = a;
        for (int64_t row = 0; row < rows; row += MR, a_panel.data += a.panel_stride)
            for (int64_t column = 0; column < columns; column += NR)
                multiply_tile(std::min<int64_t>(MR, rows - row), columns - column, std::min<int64_t>(TILE_K, K - k),
                              a_panel, b_panels + column / NR * b_panel_words + b_panel_size(k),
                              sums + row * stride + column, stride, accumulate || k > 0, interleave);
    }
}

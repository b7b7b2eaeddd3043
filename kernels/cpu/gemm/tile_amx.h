// A product's register tile by AMX: an instruction multiplies 16 x 32 by 32 x 16 in bf16 and adds to 16 x 16 sums in f32.
// Two by two of them make 32 x 32. tiles.h has the instructions, terms.h the words: pair_words.h, or part_words.h for f32.
// Intel, "Instruction Set Extensions Programming Reference", TDPBF16PS.
#pragma once
#include "cpu/select/amx_packing.h"
#include "cpu/select/amx_instructions.h"

constexpr int ROWS = 32;
// Terms of one instruction; of a tile at most: of 256 in bf16, a strip of A stays in the first cache while panels of B pass.
constexpr int64_t STEP = 32, TILE_TERMS = PARTS == 1 ? 256 : 1 << 20;
// Which part of A meets which of B: neighbours share one, which is not loaded again. A number that is one part has the last.
constexpr int MEETINGS[][2] = {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}}, LAST = 5, FIRST = PARTS == 1 ? LAST : 0;
constexpr int64_t PART_BYTES = ROWS * STEP / 2 * 4;  // of a step's words of a strip
// Of A's next step, asked for at each meeting of f32's parts, which load 14 tiles for 24 multiplications. In bf16 it is one for
// each: asking for more would take longer than it saves.
constexpr int64_t BYTES_AHEAD = PARTS == 1 ? 0 : PARTS * PART_BYTES / (LAST + 1);

constexpr int64_t panel_size(int64_t K) { return padded(K, STEP) / 2 * PANEL * PARTS; }
const TileConfiguration WHOLE{64, 64, 64, 64, 64, 64, 64, 64};
inline void begin_tiles() { configure_tiles(WHOLE); }

// A[0:rows, 0:K] as a tile reads it: bf16 in place where the tiles are whole and terms are neighbours, though rows may fall on
// one another in the first cache; else as a copy of squares with zeros for what is missing.
__attribute__((noinline)) static Left pack_left(Word* copy, Matrix a, int64_t rows, int64_t K) {
    if (PARTS == 1 && a.column_stride == 1 && a.strip_gap == 0 && K % STEP == 0 && rows % ROWS == 0)
        return {reinterpret_cast<const char*>(a.data), a.row_stride * 2, STEP * 2, ROWS * a.row_stride * 2};
    const Words source{a, rows, K};
    const int64_t words = padded(K, STEP) / 2;
    for (int64_t word = 0; word < words; word += LANES)
        for (int64_t line = 0; line < padded(rows, ROWS); line += LANES)
            pack_square<true>(copy + (line / ROWS * words + word) * PARTS * ROWS + line % ROWS * LANES, LANES, ROWS * LANES,
                              source, line, word, words);
    return {reinterpret_cast<const char*>(copy), LANES * 4, PARTS * PART_BYTES, words / LANES * PARTS * PART_BYTES};
}

// sums (32, PANEL) = A panel, or += where they go on. `sums` has room for all 32 rows.
template <class Beside>
inline void multiply_tile(int64_t /*rows*/, int64_t K, Left a, const Word* panel, float* sums, int64_t stride, bool goes_on,
                          Beside& beside) {
    asm volatile("" ::: "memory");  // GCC 12 does not know that LOAD_TILE reads memory
    float* lower = sums + 16 * stride;
    if (goes_on) {
        LOAD_TILE(0, sums, stride * 4);
        LOAD_TILE(1, sums + 16, stride * 4);
        LOAD_TILE(2, lower, stride * 4);
        LOAD_TILE(3, lower + 16, stride * 4);
    } else {
        ZERO_TILE(0);
        ZERO_TILE(1);
        ZERO_TILE(2);
        ZERO_TILE(3);
    }
    for (int64_t k = 0; k < K; k += STEP, a.data += a.step_stride, panel += STEP / 2 * PANEL * PARTS) {
#pragma GCC unroll 6
        for (int meeting = FIRST; meeting <= LAST; ++meeting) {
            const int left = MEETINGS[meeting][0], right = MEETINGS[meeting][1];
            if (meeting == FIRST || left != MEETINGS[meeting - 1][0]) {
                const char* const rows = a.data + left * PART_BYTES;
                LOAD_TILE(4, rows, a.row_stride);
                LOAD_TILE(5, rows + 16 * a.row_stride, a.row_stride);
            }
            if (meeting == FIRST || right != MEETINGS[meeting - 1][1]) {
                const Word* const columns = panel + right * STEP / 2 * PANEL;
                LOAD_TILE(6, columns, PANEL * 4);
                LOAD_TILE(7, columns + 16, PANEL * 4);
            }
            MULTIPLY_TILES(0, 4, 6);
            MULTIPLY_TILES(1, 4, 7);
            MULTIPLY_TILES(2, 5, 6);
            MULTIPLY_TILES(3, 5, 7);
            beside();
            for (int64_t byte = 0; byte < BYTES_AHEAD; byte += LINE * 4)
                __builtin_prefetch(a.data + a.step_stride + meeting * BYTES_AHEAD + byte);
        }
    }
    STORE_TILE(0, sums, stride * 4);
    STORE_TILE(1, sums + 16, stride * 4);
    STORE_TILE(2, lower, stride * 4);
    STORE_TILE(3, lower + 16, stride * 4);
}

#include "cpu/gemm/macro_kernel.h"

// The register tile of a GEMM by AMX: 32 x 32 sums in two by two of its tiles. One instruction multiplies 16 x 32 by
// 32 x 16 in bf16 and adds to 16 x 16 sums in f32. select/amx_packing.h has the packed words: of bf16, or of f32 in its
// bf16x3 split; select/amx_instructions.h has the instructions.
// Intel, "Instruction Set Extensions Programming Reference", TDPBF16PS.
#pragma once
#include "cpu/select/amx_instructions.h"
#include "cpu/select/amx_packing.h"

constexpr int MR = 32;
constexpr int64_t K_STEP = 32;  // terms of one instruction
// From so many columns on, rows in bf16 are copied. The tile reads a copy 1.3 to 1.5 times as fast as rows in place, whose
// lines are far apart. Copying takes as long as multiplying by 70 columns.
constexpr int64_t LEAST_COLUMNS_OF_COPY = 256;
constexpr bool SUMS_IN_REGISTERS = false;
constexpr int64_t ACCUMULATED_TERMS = 1 << 20;
// Which split of A is multiplied by which of B, smallest products first. Neighbours in the list share a split, which is
// not loaded again. With a single split, only the last entry is used.
constexpr int SPLIT_PRODUCTS[][2] = {{2, 0}, {1, 0}, {1, 1}, {0, 1}, {0, 2}, {0, 0}};
constexpr int LAST_PRODUCT = 5, FIRST_PRODUCT = SPLITS == 1 ? LAST_PRODUCT : 0;
constexpr int64_t SPLIT_BYTES = MR * K_STEP / 2 * 4;  // one split of an A micro-panel's words of a step
// Bytes of A's next step that each product of splits prefetches: in f32, 14 tiles are loaded for 24 multiplications. In
// bf16 each multiplication loads one tile, and prefetching would take longer than it saves.
constexpr int64_t PREFETCHED_BYTES = SPLITS == 1 ? 0 : SPLITS * SPLIT_BYTES / (LAST_PRODUCT + 1);

constexpr int64_t b_panel_size(int64_t K) { return padded(K, K_STEP) / 2 * NR * SPLITS; }
const TileConfiguration WHOLE_TILES{64, 64, 64, 64, 64, 64, 64, 64};
inline void begin_tiles() { configure_tiles(WHOLE_TILES); }

// The tile can read bf16 in place if tiles are whole and terms contiguous.
inline bool reads_in_place(const Matrix& a, int64_t rows, int64_t K, int64_t columns) {
    const bool can = SPLITS == 1 && a.column_stride == 1 && K % K_STEP == 0 && rows % MR == 0;
    return can && columns < LEAST_COLUMNS_OF_COPY;
}
inline PackedA a_in_place(const Matrix& a) {
    return {reinterpret_cast<const char*>(a.data), a.row_stride * 2, K_STEP * 2, MR * a.row_stride * 2};
}

// The packed words of an A micro-panel of K terms, and A[0:rows, 0:K] packed into `copy` as squares, filled with zeros.
constexpr int64_t a_panel_size(int64_t K) { return padded(K, K_STEP) / 2 * SPLITS * MR; }
template <bool BY_LINE>
inline void copy_squares(PackedWord* copy, const WordSource& source, int64_t rows, int64_t K) {
    const int64_t words = padded(K, K_STEP) / 2;
    for (int64_t word = 0; word < words; word += LANES)
        for (int64_t line = 0; line < padded(rows, MR); line += LANES)
            pack_square<true, BY_LINE>(copy + line / MR * a_panel_size(K) + word * SPLITS * MR + line % MR * LANES,
                                       LANES, MR * LANES, source, line, word, words);
}
__attribute__((noinline)) static PackedA copy_a(PackedWord* copy, Matrix a, int64_t rows, int64_t K) {
    const WordSource source{a, rows, K};
    if (source.contiguous_terms)
        copy_squares<true>(copy, source, rows, K);
    else
        copy_squares<false>(copy, source, rows, K);
    return {reinterpret_cast<const char*>(copy), LANES * 4, SPLITS * SPLIT_BYTES, a_panel_size(K) * 4};
}

// sums (MR, NR) = A times a B micro-panel, or += if `accumulate`. `sums` has room for all MR rows. interleave() is
// called once for each product of splits, because the vector units are idle while the tiles multiply.
template <class Interleave>
inline void multiply_tile(int64_t /*rows*/, int64_t /*columns*/, int64_t K, PackedA a, const PackedWord* b_panel,
                          float* sums, int64_t stride, bool accumulate, Interleave& interleave) {
    asm volatile("" ::: "memory");  // GCC 12 does not know that LOAD_TILE reads memory
    float* lower = sums + 16 * stride;
    if (accumulate) {
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
    for (int64_t k = 0; k < K; k += K_STEP, a.data += a.step_stride, b_panel += K_STEP / 2 * NR * SPLITS) {
#pragma GCC unroll 6
        for (int product = FIRST_PRODUCT; product <= LAST_PRODUCT; ++product) {
            const int a_split = SPLIT_PRODUCTS[product][0], b_split = SPLIT_PRODUCTS[product][1];
            if (product == FIRST_PRODUCT || a_split != SPLIT_PRODUCTS[product - 1][0]) {
                const char* const rows = a.data + a_split * SPLIT_BYTES;
                LOAD_TILE(4, rows, a.row_stride);
                LOAD_TILE(5, rows + 16 * a.row_stride, a.row_stride);
            }
            if (product == FIRST_PRODUCT || b_split != SPLIT_PRODUCTS[product - 1][1]) {
                const PackedWord* const columns = b_panel + b_split * K_STEP / 2 * NR;
                LOAD_TILE(6, columns, NR * 4);
                LOAD_TILE(7, columns + 16, NR * 4);
            }
            MULTIPLY_TILES(0, 4, 6);
            MULTIPLY_TILES(1, 4, 7);
            MULTIPLY_TILES(2, 5, 6);
            MULTIPLY_TILES(3, 5, 7);
            interleave();
            for (int64_t byte = 0; byte < PREFETCHED_BYTES; byte += LINE * 4)
                __builtin_prefetch(a.data + a.step_stride + product * PREFETCHED_BYTES + byte);
        }
    }
    STORE_TILE(0, sums, stride * 4);
    STORE_TILE(1, sums + 16, stride * 4);
    STORE_TILE(2, lower, stride * 4);
    STORE_TILE(3, lower + 16, stride * 4);
}

#include "cpu/gemm/macro_kernel.h"

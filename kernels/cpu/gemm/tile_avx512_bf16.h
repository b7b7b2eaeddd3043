// The register tile of a GEMM in bf16, by AVX512-BF16. One instruction adds, in each of 16 lanes, the products of two
// terms that are neighbours in K to an f32 sum, so a step over K is a pair.
// Intel, "Instruction Set Extensions Programming Reference", VDPBF16PS.
#pragma once
#include "cpu/gemm/pack_bf16.h"

constexpr int MR = 12;
constexpr int64_t K_STEP = 2;

constexpr int64_t b_panel_size(int64_t K) { return (K + 1) / 2 * NR; }

// Whether the terms of a row of A are stored as words.
inline bool has_words(const Matrix& a, int64_t K) { return a.column_stride == 1 && K % 2 == 0; }

inline Vector add_products(Vector sums, PackedWord a, Vector b) {
    return (Vector)_mm512_dpbf16_ps((__m512)sums, (__m512bh)_mm512_set1_ps(a), (__m512bh)b);
}

#include "cpu/gemm/register_tile.h"

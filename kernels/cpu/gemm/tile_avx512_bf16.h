// The register tile of a GEMM in bf16, by AVX512-BF16: MR x NR sums. One instruction adds, in each of 16 lanes, the
// products of two terms that are neighbours in K to an f32 sum, so a step over K is a pair.
// Intel, "Instruction Set Extensions Programming Reference", VDPBF16PS.
#pragma once
#include "cpu/gemm/pack_bf16.h"

constexpr int MR = 12;
constexpr int UPPER_ROWS = 6;  // see tile_vector.h
constexpr int64_t K_STEP = 2, TILE_K = 1 << 20;  // terms of a step; the most terms of a tile: no limit

constexpr bool SUMS_IN_REGISTERS = true;
constexpr int64_t ACCUMULATED_TERMS = 2 * 4096 / NR;  // a B micro-panel of so many takes 16 KB, half of an L1

constexpr int64_t b_panel_size(int64_t K) { return (K + 1) / 2 * NR; }
inline void begin_tiles() {}

// The tile reads A in place if pairs are contiguous.
inline bool reads_in_place(const Matrix& a, int64_t /*rows*/, int64_t K) { return a.column_stride == 1 && K % 2 == 0; }
inline PackedA a_in_place(const Matrix& a) {
    return {reinterpret_cast<const char*>(a.data), a.row_stride * 2, 4, MR * a.row_stride * 2};
}

// The packed words of an A micro-panel of K terms, and A[0:rows, 0:K] packed into `copy`.
constexpr int64_t a_panel_size(int64_t K) { return (K + 1) / 2 * MR + padded(MR) - MR; }
__attribute__((noinline)) static PackedA copy_a(PackedWord* copy, Matrix a, int64_t rows, int64_t K) {
    pack_micro_panels(copy, MR, a_panel_size(K), WordSource{a, rows, K}, rows, (K + 1) / 2);
    return {reinterpret_cast<const char*>(copy), 4, MR * 4, a_panel_size(K) * 4};
}

// sums (R, NR) = A times a B micro-panel, or += if `accumulate`.
template <int R>
void tile(int64_t K, const PackedA& a, const PackedWord* b_panel, float* sums, int64_t stride, bool accumulate) {
    __m512 values[R][2] = {};
    const int64_t row_stride = a.row_stride, step_stride = a.step_stride;
    const char *upper = a.data, *lower = a.data + UPPER_ROWS * row_stride;
    const PackedWord* const end = b_panel + b_panel_size(K);
    for (; b_panel < end; b_panel += NR, upper += step_stride, lower += step_stride) {
        const __m512bh left = (__m512bh)_mm512_loadu_ps(b_panel);
        const __m512bh right = (__m512bh)_mm512_loadu_ps(b_panel + 16);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            int32_t word;
            memcpy(&word, (r < UPPER_ROWS ? upper : lower) + r % UPPER_ROWS * row_stride, 4);
            const __m512bh factor = (__m512bh)_mm512_set1_epi32(word);
            values[r][0] = _mm512_dpbf16_ps(values[r][0], factor, left);
            values[r][1] = _mm512_dpbf16_ps(values[r][1], factor, right);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
            float* sum = sums + r * stride + half * 16;
            _mm512_storeu_ps(sum, accumulate ? _mm512_add_ps(_mm512_loadu_ps(sum), values[r][half]) : values[r][half]);
        }
}
#include "cpu/gemm/tile_rows.h"
#include "cpu/gemm/macro_kernel.h"

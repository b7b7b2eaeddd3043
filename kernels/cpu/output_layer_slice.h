// A slice of output_layer.cpp: SLICE rows of the vocabulary times one panel of NR tokens, from logits to exponentials.
#pragma once
#include "formulas.h"
#include "cpu/gemm/dual_operand_size.h"
#include "cpu/select/dual_operand.h"
#include "cpu/select/gemm_tile.h"
#include <algorithm>

constexpr int64_t SLICE = padded(32, MR);
static_assert(NR == 2 * LANES && OPERAND_COLUMNS % NR == 0 && OPERAND_ROWS % MR == 0);
constexpr float TOO_LARGE = 1e26f;  // a total whose product with a weight is still far from the largest f32
constexpr float LOWEST = -1e30f;    // a logit whose exponential is the smallest that exp_f32 gives, 1.6e-38

// NR tokens, columns of the logits, and what is known of each so far; the target's logit is kept apart from the total.
// sums (C, NR): dx without its last factor.
struct TokenPanel {
    alignas(64) float reference[NR], total[NR], target_logit[NR];
    int64_t first, count;
    float* sums;

    int64_t index() const { return first / NR; }
};

// The work on a slice that is interleaved with the GEMM of the next one. Each call takes one row of packed words:
// e = exp(logit - reference) is added to the panel's totals, stored as the operand of dweight, and packed as the
// operand of dx. logits (rows, NR) begin at vocabulary row `row` and at word `first_word` of the B micro-panel.
struct SliceExponentials {
    const DualOperand* exponentials;
    TokenPanel* panel;
    const float* logits;
    PackedWord* b_panel;
    int64_t row, first_word, words = 0, word = 0;
    float totals_before[NR] = {};

    void operator()() {
        if (word == words) return;
        alignas(64) float values[WORD_TERMS][NR];
        const int64_t first = first_term(word);
        for (int term = 0; term < WORD_TERMS; ++term) {
            const float* const source = logits + (first + term * TERM_DISTANCE) * NR;
            for (int64_t half = 0; half < NR; half += LANES)
#pragma omp simd
                for (int64_t j = half; j < half + LANES; ++j) {
                    values[term][j] = exp_f32(source[j] - panel->reference[j]);
                    panel->total[j] += values[term][j];
                }
        }
        for (int term = 0; term < WORD_TERMS; ++term) {
            const float* const numbers = values[term];
            exponentials->put(panel->index(), row + first + term * TERM_DISTANCE, vector_at(numbers),
                              vector_at(numbers + LANES));
        }
        for (int64_t half = 0; half < NR; half += LANES)
            put_b_words(b_panel, first_word + word, half, vector_at(values[0] + half),
                        vector_at(values[WORD_TERMS - 1] + half));
        ++word;
    }
    void finish() {
        while (word < words) (*this)();
    }
};

// maxima = the maximum of each column of logits (rows, NR).
static void maxima_of_columns(float* maxima, const float* logits, int64_t rows) {
    std::copy_n(logits, NR, maxima);
    for (int64_t r = 1; r < rows; ++r)
        for (int64_t j = 0; j < NR; ++j) maxima[j] = std::max(maxima[j], logits[r * NR + j]);
}

static bool any_too_large(const float* totals) {
    return std::any_of(totals, totals + NR, [](float total) { return total > TOO_LARGE; });
}

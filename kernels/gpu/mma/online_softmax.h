// The softmax of a wave's rows, whose scores come tile by tile: Milakov & Gimelshein 2018, arXiv:1805.02867; with sums of
// values as in Dao et al. 2022, arXiv:2205.14135.
#pragma once
#include "gpu/mma/head_tiles.h"
#include "formulas.h"

constexpr float MASKED = -1e30f;

struct OnlineSoftmax {
    Sum out[Head::ALONG] = {};                        // of values, each times 2^(score - maximum)
    float maximum[Mma::SLOTS], sum[Mma::SLOTS] = {};  // of scores as powers of 2, because exp2 is one instruction

    DEVICE_MEMBER OnlineSoftmax() {
        for (int slot = 0; slot < Mma::SLOTS; ++slot) maximum[slot] = MASKED;
    }

    // Turns the scores of a streamed tile, times `scale`, into 2^(score - maximum), and rescales what came before.
    template <class MmaTiles>
    DEVICE_MEMBER void weigh(Sum (&scores)[Head::DOWN], const MmaTiles& tiles, float scale) {
        float raised[Mma::SLOTS], added[Mma::SLOTS] = {}, shrink[Mma::SLOTS];
        for (int slot = 0; slot < Mma::SLOTS; ++slot) raised[slot] = MASKED;
#pragma unroll
        for (int j = 0; j < Head::DOWN; ++j)
            if (tiles.has(j))
#pragma unroll
                for (int e = 0; e < Mma::SIZE; ++e)
                    raised[Mma::slot(e)] = fmaxf(raised[Mma::slot(e)], scores[j].value[e]);
#pragma unroll
        for (int slot = 0; slot < Mma::SLOTS; ++slot) {
            const auto larger = [](float a, float b) { return fmaxf(a, b); };
            raised[slot] = fmaxf(maximum[slot], Mma::across_row(raised[slot], larger) * scale);
            shrink[slot] = quick_exp2(maximum[slot] - raised[slot]);
            maximum[slot] = raised[slot];
        }
#pragma unroll
        for (int j = 0; j < Head::DOWN; ++j)
            if (tiles.has(j))
#pragma unroll
                for (int e = 0; e < Mma::SIZE; ++e) {
                    const float probability = quick_exp2(scores[j].value[e] * scale - raised[Mma::slot(e)]);
                    scores[j].value[e] = probability;
                    added[Mma::slot(e)] += probability;
                }
#pragma unroll
        for (int slot = 0; slot < Mma::SLOTS; ++slot) sum[slot] = sum[slot] * shrink[slot] + added[slot];
#pragma unroll
        for (int c = 0; c < Head::ALONG; ++c)
#pragma unroll
            for (int e = 0; e < Mma::SIZE; ++e) out[c].value[e] *= shrink[Mma::slot(e)];
    }

    // Returns 1 / sum of a row, the factor for its `out`, and sets its logsumexp in nats.
    DEVICE_MEMBER float finish(int slot, float& logsumexp) const {
        const float whole = Mma::across_row(sum[slot], [](float a, float b) { return a + b; });
        logsumexp = maximum[slot] / LOG2_E + logf(whole);
        return 1.0f / whole;
    }
};

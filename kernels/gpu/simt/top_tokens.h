// A draw from the top_k tokens of the greatest scores, if they are so few that each can have a thread of its own.
#pragma once
#include "gpu/simt/token_scores.h"

struct TopTokens {
    uint32_t key[SAMPLING_THREADS];  // ordered(score)
    int32_t id[SAMPLING_THREADS];
    double weight[SAMPLING_THREADS];
    int count;

    // Lists all tokens whose scores are at least the top_k-th of the threads' own greatest scores: the top_k tokens are
    // among them. Returns whether there is room for all.
    DEVICE_MEMBER bool find(const Scores& scores, float own, int64_t top_k) {
        const float wanted = static_cast<float>(top_k);
        uint32_t least = 0;
        for (uint32_t bit = 0x80000000u; bit >= scores.gap; bit /= 2) {
            const float reached = block_sum<SAMPLING_THREADS>(ordered(own) >= (least | bit) ? 1.0f : 0.0f);
            if (reached >= wanted) least |= bit;
            if (reached == wanted) break;
        }
        double mine = 0.0;
        scores.visit_shared([&](int64_t, float score) { mine += ordered(score) >= least; });
        const double up_to_here = sum_up_to_here(mine, weight);
        if (threadIdx.x == SAMPLING_THREADS - 1) count = static_cast<int>(up_to_here);
        __syncthreads();
        if (count > SAMPLING_THREADS) return false;
        int place = static_cast<int>(up_to_here - mine);
        scores.visit_shared([&](int64_t v, float score) {
            if (ordered(score) < least) return;
            key[place] = ordered(score);
            id[place++] = static_cast<int32_t>(v);
        });
        __syncthreads();
        return true;
    }

    // Whether a token comes before another one in the order of scores. Ties go to the lower id.
    DEVICE_MEMBER bool is_before(int other, int own) const {
        return key[other] > key[own] || (key[other] == key[own] && id[other] < id[own]);
    }

    // The sum of the weights of those tokens that `counts` is true of.
    template <class Counts>
    DEVICE_MEMBER double sum(const Counts& counts) const {
        double sum = 0.0;
        for (int i = 0; i < count; ++i)
            if (counts(i)) sum += weight[i];
        return sum;
    }

    // All threads must call it.
    DEVICE_MEMBER int32_t draw(const Scores& scores, int top_k, float top_p, double uniform) {
        const int own = threadIdx.x;
        const bool is_listed = own < count;
        int rank = 0;
        for (int i = 0; i < count; ++i) rank += is_listed && is_before(i, own);
        const bool is_top = is_listed && rank < top_k;
        double own_weight = is_top ? scores.weight(key[own]) : 0.0;
        if (is_listed) weight[own] = own_weight;
        __syncthreads();
        if (top_p < 1.0f) {
            const double wanted = top_p * sum([](int) { return true; });
            if (is_top && !(sum([&](int i) { return is_before(i, own); }) < wanted)) own_weight = 0.0;
            __syncthreads();
            if (is_listed) weight[own] = own_weight;
            __syncthreads();
        }
        const double wanted = uniform * sum([](int) { return true; });
        const bool may_be = own_weight > 0.0;
        const bool is_reached = may_be && sum([&](int i) { return id[i] <= id[own]; }) > wanted;
        // the first token that is reached; if rounding leaves none, the last one that may be drawn
        const float self = is_listed ? static_cast<float>(id[own]) : 0.0f, none = static_cast<float>(scores.V);
        const float first = -block_maximum<SAMPLING_THREADS>(is_reached ? -self : -none);
        const float last = block_maximum<SAMPLING_THREADS>(may_be ? self : 0.0f);
        return static_cast<int32_t>(first < none ? first : last);
    }
};

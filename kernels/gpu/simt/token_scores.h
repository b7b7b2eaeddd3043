// The scores of all tokens of a sequence, and a draw from those that top_k and top_p leave, by a block of
// DRAW_THREADS, which a kernel's file defines. The scores that they leave are bounded by a search for the bits of the
// least of them.
#pragma once
#include "gpu/simt/vector_io.h"
#include "gpu/simt/reduce.h"
#include "formulas.h"

// Not -1.0f / 0.0f, because NVRTC leaves that division to the chip.
DEVICE float minus_infinity() { return bits_float(0xFF800000); }

// Unsigned numbers in the order of floats; both zeros are the same.
DEVICE uint32_t ordered(float score) {
    const uint32_t bits = static_cast<uint32_t>(float_bits(score + 0.0f));
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float score_of(uint32_t key) {
    return bits_float(static_cast<int32_t>(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key));
}

// A sequence's scores, and which of its tokens may be drawn: those above the least key, and the first `ties` at it.
struct Scores {
    const act* logits;
    const float* changed;  // all scores, or nullptr if they are the logits
    int64_t V;
    float temperature, greatest = 0.0f;
    uint32_t least = 0;
    double ties = 0.0;

    DEVICE_MEMBER float at(int64_t v) const { return changed ? changed[v] : widen(logits[v]); }

    // visit(id, scores) for WIDTH tokens from `begin` on, then for those `stride` further on, up to `end`.
    template <class Visit>
    DEVICE_MEMBER void visit_vectors(int64_t begin, int64_t end, int64_t stride, const Visit& visit) const {
        const bool aligned = is_wide(V);
        for (int64_t v = begin; v < end; v += stride) {
            float scores[WIDTH];
            if (changed)
                load_some(scores, changed + v, end - v, aligned);
            else
                load_some(scores, logits + v, end - v, aligned);
            visit(v, scores);
        }
    }

    // visit(id, score) for every one of these tokens.
    template <class Visit>
    DEVICE_MEMBER void visit_tokens(int64_t begin, int64_t end, int64_t stride, const Visit& visit) const {
        visit_vectors(begin, end, stride, [&](int64_t v, const float(&scores)[WIDTH]) {
#pragma unroll
            for (int i = 0; i < WIDTH; ++i)
                if (v + i < end) visit(v + i, scores[i]);
        });
    }

    // The same for all tokens, which the threads of the block share.
    template <class Visit>
    DEVICE_MEMBER void visit_shared(const Visit& visit) const {
        visit_tokens(threadIdx.x * WIDTH, V, DRAW_THREADS * WIDTH, visit);
    }

    DEVICE_MEMBER double weight(uint32_t key) const { return weight_of(score_of(key), greatest, temperature); }

    // The block's sum of measure(key) over the keys from `first` on.
    template <class Measure>
    DEVICE_MEMBER auto sum_from(uint32_t first, const Measure& measure) const {
        decltype(measure(first)) sum = 0;
        visit_shared([&](int64_t, float score) {
            if (const uint32_t key = ordered(score); key >= first) sum += measure(key);
        });
        return block_sum<DRAW_THREADS>(sum);
    }

    // Leaves the fewest tokens, from the greatest score down, whose measures sum to `wanted`.
    template <class Measure>
    DEVICE_MEMBER void keep(double wanted, const Measure& measure) {
        // between the keys of two numbers of one sign
        const uint32_t gap = sizeof(act) == 2 && !changed ? 1u << 16 : 1u;
        uint32_t found = 0;
        double above = 0.0;  // the sum of what is greater than `found`, in the end
        for (uint32_t bit = 0x80000000u; bit >= gap; bit /= 2) {
            const uint32_t candidate = found | bit;
            const double sum = candidate > least ? sum_from(candidate, measure) : wanted + 1.0;
            if (sum == wanted) {
                least = candidate - 1;
                ties = 0.0;
                return;
            }
            if (sum > wanted)
                found = candidate;
            else
                above = sum;
        }
        if (found < 0x80000000u) found |= gap - 1;  // the keys of negative numbers end in ones
        const double needed = ceil((wanted - above) / measure(found));
        if (found != least || needed < ties) ties = needed;
        least = found;
    }

    DEVICE_MEMBER double sum_of_weights() const {
        const double above = sum_from(least + 1, [this](uint32_t key) { return weight(key); });
        return ties > 0.0 ? above + ties * weight(least) : above;
    }
};

// The sums over this thread and those before it, and over the whole block.
struct RunningSum {
    double up_to_here, all;
};

// Over the lanes of a wave, from the sums of LANE_MASK neighbours each.
template <int LANE_MASK = 1>
DEVICE RunningSum running_sum_of_wave(RunningSum sum) {
    const double other = wave_exchange<LANE_MASK>(sum.all);
    if (threadIdx.x & LANE_MASK) sum.up_to_here += other;
    sum.all += other;
    if constexpr (LANE_MASK < WAVE / 2) sum = running_sum_of_wave<2 * LANE_MASK>(sum);
    return sum;
}

// In a fixed order. All threads of the block must call it.
DEVICE RunningSum running_sum(double value) {
    __shared__ double waves[DRAW_THREADS / WAVE];
    const int own = threadIdx.x / WAVE;
    RunningSum sum = running_sum_of_wave({value, value});
    __syncthreads();
    if (threadIdx.x % WAVE == 0) waves[own] = sum.all;
    __syncthreads();
    double before = 0.0, all = 0.0;
    for (int wave = 0; wave < DRAW_THREADS / WAVE; ++wave) {
        if (wave == own) before = all;
        all += waves[wave];
    }
    return {before + sum.up_to_here, all};
}

// A drawn token. Thread i has the i-th run of ids, so that sums are taken in the order of ids.
DEVICE int32_t draw_from_all(const Scores& scores, double uniform) {
    __shared__ int32_t chosen;
    const int64_t each = (scores.V + DRAW_THREADS * WIDTH - 1) / (DRAW_THREADS * WIDTH) * WIDTH;
    const int64_t begin = threadIdx.x * each, end = begin + each < scores.V ? begin + each : scores.V;
    double ties = 0.0;
    scores.visit_tokens(begin, end, WIDTH, [&](int64_t, float score) { ties += ordered(score) == scores.least; });
    const double left = scores.ties - (running_sum(ties).up_to_here - ties);  // ties that this thread's run still has
    const auto each_kept = [&](const auto& visit) {
        double ties_left = left;
        scores.visit_tokens(begin, end, WIDTH, [&](int64_t v, float score) {
            const uint32_t key = ordered(score);
            if (key > scores.least || (key == scores.least && ties_left-- > 0.0)) visit(v, scores.weight(key));
        });
    };
    double own = 0.0;
    each_kept([&](int64_t, double weight) { own += weight; });
    const RunningSum sums = running_sum(own);
    const double wanted = uniform * sums.all;
    // The first thread whose sum exceeds what is wanted, because rounding may put neighbours' sums out of order. If
    // rounding leaves none, the last thread that has a token.
    const float self = static_cast<float>(threadIdx.x), none = DRAW_THREADS;
    const float first = -block_maximum<DRAW_THREADS>(own > 0.0 && sums.up_to_here > wanted ? -self : -none);
    const float last_of_all = block_maximum<DRAW_THREADS>(own > 0.0 ? self : -1.0f);
    if (threadIdx.x == 0) chosen = 0;
    __syncthreads();
    if (self == (first < none ? first : last_of_all)) {
        double sum = sums.up_to_here - own;
        int32_t last = 0;
        bool is_found = false;
        each_kept([&](int64_t v, double weight) {
            sum += weight;
            if (!is_found) last = static_cast<int32_t>(v);
            is_found = is_found || sum > wanted;
        });
        chosen = last;
    }
    __syncthreads();
    return chosen;
}

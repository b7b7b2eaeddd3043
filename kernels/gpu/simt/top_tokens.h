// A draw from the top_k tokens of the greatest scores, if they are few. A bound that top_k scores reach leaves about as
// many candidates. Each candidate is compared with all others: that gives its rank and the sums of weights before it.
#pragma once
#include "gpu/simt/token_scores.h"

// The work grows with the square of top_k. A larger top_k takes the search for the bits of the least score.
constexpr int MOST_TOP_K = 256;
constexpr int TEAM = 8;  // neighbouring lanes that compare an entry of a list with all entries

// visit(entry) for every entry of a list, by a team. All threads must call it. The lanes of a wave visit together, because
// they exchange sums. So a team may visit an entry beyond the list; visit() must ignore it.
template <class Visit>
DEVICE void visit_by_teams(int count, const Visit& visit) {
    const int team = threadIdx.x / TEAM, first_of_wave = threadIdx.x / WAVE * (WAVE / TEAM);
    for (int i = 0; first_of_wave + i < count; i += DRAW_THREADS / TEAM) visit(team + i);
}

DEVICE int lane_of_team() { return threadIdx.x % TEAM; }

// An entry is a score and an id, as one number. No two are equal, greater scores are greater, and ties go to the lower id.
DEVICE uint64_t entry_of(float score, int64_t id) {
    return static_cast<uint64_t>(ordered(score)) << 32 | ~static_cast<uint32_t>(id);
}
DEVICE float score_in(uint64_t entry) { return score_of(static_cast<uint32_t>(entry >> 32)); }
DEVICE int32_t id_in(uint64_t entry) { return static_cast<int32_t>(~static_cast<uint32_t>(entry)); }

struct TopTokens {
    uint64_t list[DRAW_THREADS];  // groups of threads, with their greatest scores; later the candidates
    int32_t id[MOST_TOP_K];       // in the order of ranks
    double weight[MOST_TOP_K];
    float bound, greatest;
    int listed, kept;
    int32_t token;

    // visit(rank, entry) for every entry of the list, by one lane.
    template <class Visit>
    DEVICE_MEMBER void rank(int count, const Visit& visit) const {
        visit_by_teams(count, [&](int own) {
            const uint64_t entry = list[own];
            int greater = 0;
#pragma unroll 4
            for (int i = lane_of_team(); i < count; i += TEAM) greater += list[i] > entry;
            const float rank = sum_of_lanes<TEAM>(static_cast<float>(greater));
            if (lane_of_team() == 0 && own < count) visit(static_cast<int>(rank), entry);
        });
    }

    // Finds the greatest score, and the bound: the top_k-th of the greatest scores of groups of threads. At least 1.5 top_k
    // groups leave few candidates; more groups take longer to compare. own: the thread's greatest score.
    DEVICE_MEMBER void find_bound(int64_t V, float own, int top_k) {
        const int64_t vectors = (V + WIDTH - 1) / WIDTH;
        const int threads = static_cast<int>(vectors < DRAW_THREADS ? vectors : DRAW_THREADS);
        int shift = 3;  // a group has 2^shift threads
        while (shift > 0 && 2 * (threads >> shift) < 3 * top_k) --shift;
        if (shift > 0) own = fmaxf(own, wave_exchange<1>(own));
        if (shift > 1) own = fmaxf(own, wave_exchange<2>(own));
        if (shift > 2) own = fmaxf(own, wave_exchange<4>(own));
        const int group = threadIdx.x >> shift, groups = ((threads - 1) >> shift) + 1;
        if ((threadIdx.x & ((1u << shift) - 1)) == 0) list[group] = entry_of(own, group);
        if (threadIdx.x == 0) {
            bound = minus_infinity();  // if there are fewer groups than top_k
            listed = 0;
            kept = top_k;
            token = 0;
        }
        __syncthreads();
        rank(groups, [&](int rank, uint64_t entry) {
            if (rank == 0) greatest = score_in(entry);
            if (rank == top_k - 1) bound = score_in(entry);
        });
        __syncthreads();
    }

    // Lists all tokens that reach the bound. Returns whether there is room for all. All threads must call it.
    DEVICE_MEMBER bool find(const Scores& scores, float own, int top_k) {
        find_bound(scores.V, own, top_k);
        const float least = bound;
        const int64_t begin = threadIdx.x * WIDTH, end = own >= least ? scores.V : begin;
        scores.visit_vectors(begin, end, DRAW_THREADS * WIDTH, [&](int64_t v, const float(&values)[WIDTH]) {
            uint32_t reaches = 0;  // a bit for each token
#pragma unroll
            for (int i = 0; i < WIDTH; ++i) reaches |= (values[i] >= least ? 1u : 0u) << i;
            if (end - v < WIDTH) reaches &= (1u << (end - v)) - 1;
            for (; reaches; reaches &= reaches - 1) {
                const int64_t candidate = v + lowest_bit(reaches);
                const int index = atomicAdd(&listed, 1);  // in any order: no result depends on it
                if (index < DRAW_THREADS) list[index] = entry_of(scores.at(candidate), candidate);
            }
        });
        __syncthreads();
        return listed <= DRAW_THREADS;
    }

    // visit(i, below, through, all) for each of the first `count` ranks, by one lane. The sums are of the weights of those
    // tokens that come before it in an order, of these and its own, and of all. All of them add the same terms in the same
    // order, some as zeros. So rounding does not put them out of order: the sum through a token is, bit for bit, the sum
    // below the next one, and the sum through the last is that of all.
    template <class Order, class Visit>
    DEVICE_MEMBER void sum(int count, const Order& order, const Visit& visit) const {
        visit_by_teams(count, [&](int own) {
            double below = 0.0, through = 0.0, all = 0.0;
#pragma unroll 4
            for (int i = lane_of_team(); i < count; i += TEAM) {
                if (order(i) < order(own)) below += weight[i];
                if (order(i) <= order(own)) through += weight[i];
                all += weight[i];
            }
            below = sum_of_lanes<TEAM>(below);
            through = sum_of_lanes<TEAM>(through);
            all = sum_of_lanes<TEAM>(all);
            if (lane_of_team() == 0 && own < count) visit(own, below, through, all);
        });
    }

    // After `find`. All threads must call it. uniform: in shared memory, read after the next barrier of the block.
    DEVICE_MEMBER int32_t draw(const Scores& scores, int top_k, float top_p, const double& uniform) {
        rank(listed, [&](int rank, uint64_t entry) {
            if (rank >= top_k) return;
            id[rank] = id_in(entry);
            weight[rank] = weight_of(score_in(entry), greatest, scores.temperature);
        });
        __syncthreads();
        int count = listed < top_k ? listed : top_k;  // fewer if there are NaN, which reach no bound
        if (top_p < 1.0f) {
            const auto of_rank = [](int i) { return i; };
            sum(count, of_rank, [&](int i, double below, double through, double all) {
                if (below < top_p * all && !(through < top_p * all)) kept = i + 1;
            });
            __syncthreads();
            count = kept < count ? kept : count;
        }
        const auto of_id = [this](int i) { return id[i]; };
        sum(count, of_id, [&](int i, double below, double through, double all) {
            if (!(below > uniform * all) && through > uniform * all) token = id[i];
        });
        __syncthreads();
        return token;
    }
};

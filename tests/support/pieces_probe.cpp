// Runs kernels/cpu/runtime/parallel.h with a thread that stands still: see test_pieces.py.
#include "cpu/runtime/parallel.h"
#include <chrono>

using Clock = std::chrono::steady_clock;

// Draws `each` pieces of `threads` threads in `rounds` rounds. In each round, one thread stays in its first piece until
// the others have done all the rest, for 20 seconds at most. taken[round, owner, piece] counts how often a piece was
// drawn. Returns how many rounds had to wait for so long.
extern "C" int64_t draw_past_a_slow_thread(int64_t threads, int64_t each, int64_t rounds, int32_t* taken) {
    Pieces pieces[2]{Pieces(threads), Pieces(threads)};
    std::vector<std::atomic<int64_t>> done(rounds), standing(rounds);
    std::atomic<int64_t> in_vain{0};
    parallel_team(threads, [&](Team team) {
        for (int64_t round = 0; round < rounds; ++round) {
            pieces[round % 2].draw(team, threads, each, [&](int64_t owner, int64_t piece) {
                __atomic_fetch_add(&taken[(round * threads + owner) * each + piece], 1, __ATOMIC_RELAXED);
                if (standing[round].fetch_add(1) == 0) {
                    const auto end = Clock::now() + std::chrono::seconds(20);
                    while (done[round].load() < threads * each - 1 && Clock::now() < end) continue;
                    if (done[round].load() < threads * each - 1) ++in_vain;
                }
                ++done[round];
            });
            team.wait();
            pieces[round % 2].renew(team.rank);
        }
    });
    return in_vain;
}

// The ranges that cover 0 <= i < count, in any order; returns how many there are, `room` at most.
extern "C" int64_t ranges(int64_t count, int64_t least, int64_t grain, int64_t (*found)[2], int64_t room) {
    std::atomic<int64_t> number{0};
    parallel_ranges(count, least, grain, [&](int64_t begin, int64_t end) {
        const int64_t i = number++;
        if (i < room) {
            found[i][0] = begin;
            found[i][1] = end;
        }
    });
    return number;
}

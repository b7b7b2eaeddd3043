// Runs kernels/cpu/runtime/parallel.h with a thread that stands still: see test_tasks.py.
#include "cpu/runtime/parallel.h"
#include <chrono>

using Clock = std::chrono::steady_clock;

// Sets how many threads a region has, and returns how many it had before.
extern "C" int64_t set_threads(int64_t threads) {
    const int64_t before = thread_count();
#ifdef _OPENMP
    omp_set_num_threads(static_cast<int>(threads));
#endif
    return before;
}

// Runs `each` tasks of `threads` threads in `rounds` rounds. In each round, one thread stays in its first task until the
// others have done all the rest, for 20 seconds at most. taken[round, owner, task] counts how often a task was taken.
// Returns how many rounds waited in vain.
extern "C" int64_t pass_a_slow_thread(int64_t threads, int64_t each, int64_t rounds, int32_t* taken) {
    Tasks tasks[2]{Tasks(thread_count()), Tasks(thread_count())};
    std::vector<std::atomic<int64_t>> done(rounds), standing(rounds);
    std::atomic<int64_t> in_vain{0};
    parallel_team(threads, [&](Team team) {
        for (int64_t round = 0; round < rounds; ++round) {
            tasks[round % 2].run(team, threads, each, [&](int64_t owner, int64_t task) {
                __atomic_fetch_add(&taken[(round * threads + owner) * each + task], 1, __ATOMIC_RELAXED);
                if (standing[round].fetch_add(1) == 0) {
                    const auto end = Clock::now() + std::chrono::seconds(20);
                    while (done[round].load() < threads * each - 1 && Clock::now() < end) continue;
                    if (done[round].load() < threads * each - 1) ++in_vain;
                }
                ++done[round];
            });
            team.wait();
            tasks[round % 2].renew(team.rank);
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

// Runs kernels/cpu/runtime/parallel.h and rounds.h with a thread that stands still or is slow: see test_tasks.py.
#include "cpu/runtime/parallel.h"
#include "cpu/runtime/rounds.h"
#include <chrono>
#include <thread>

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
    Tasks tasks(threads, each);
    std::vector<std::atomic<int64_t>> done(rounds), standing(rounds);
    std::atomic<int64_t> in_vain{0};
    parallel_team(threads, [&](Team team) {
        for (int64_t round = 0; round < rounds; ++round)
            tasks.run(team, round, [&](int64_t owner, int64_t task) {
                __atomic_fetch_add(&taken[(round * threads + owner) * each + task], 1, __ATOMIC_RELAXED);
                if (standing[round].fetch_add(1) == 0) {
                    const auto end = Clock::now() + std::chrono::seconds(20);
                    while (done[round].load() < threads * each - 1 && Clock::now() < end) std::this_thread::yield();
                    if (done[round].load() < threads * each - 1) ++in_vain;
                }
                ++done[round];
            });
    });
    return in_vain;
}

// Rounds with two buffers, of which each preparation writes an element. Some preparations and some tasks are slow. Returns
// how often a task found an element of its buffer that is not of its round, at its begin or its end, or found its task of
// the round before undone. work_of_round[round] counts the tasks.
extern "C" int64_t errors_in_rounds(int64_t threads, int64_t preparations, int64_t works, int64_t rounds,
                                    int32_t* work_of_round) {
    Rounds shared(Team{0, threads}, threads, preparations, works);
    std::vector<int64_t> buffers[MOST_BUFFERS], next(threads * works);
    for (std::vector<int64_t>& buffer : buffers) buffer.assign(threads * preparations, -1);
    std::atomic<int64_t> errors{0};
    parallel_team(threads, [&](Team team) {
        for (int64_t round = 0; round < rounds; ++round) {
            std::vector<int64_t>& buffer = buffers[shared.buffer_of(round)];
            const auto count_errors = [&] {
                for (const int64_t element : buffer) errors += element != round;
            };
            shared.run(
                team, round,
                [&](int64_t owner, int64_t task) {
                    if (round % 4 == 2 && task == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
                    buffer[owner * preparations + task] = round;
                },
                [&](int64_t owner, int64_t task) {
                    count_errors();
                    errors += next[owner * works + task] != round;
                    if (round % 4 == 0 && owner == 0 && task == 0)
                        std::this_thread::sleep_for(std::chrono::milliseconds(2));
                    next[owner * works + task] = round + 1;
                    count_errors();
                    __atomic_fetch_add(&work_of_round[round], 1, __ATOMIC_RELAXED);
                });
        }
    });
    return errors;
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

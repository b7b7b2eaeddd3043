// Threads of CPU kernels. Only one thread at a time works on an output, and the terms of its sum have one order, so
// results do not depend on the number of threads. Without OpenMP everything runs on the calling thread.
//
// Every parallel region has all threads, although some may have nothing to do: GCC's OpenMP ends the threads that a
// smaller region leaves out, and the next larger one has to create them again, in about 0.1 ms each.
#pragma once
#include "cpu/runtime/integers.h"
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

inline int64_t thread_count() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

// This thread's number in a parallel region, and how many threads the region has.
inline int64_t thread_rank() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}
inline int64_t threads_of_region() {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

// How many items of `work` operations each are worth a thread, because waking one takes some microseconds.
inline int64_t worth_a_thread(int64_t work) { return 1 + (1 << 16) / std::max<int64_t>(1, work); }

// Keeps a body from being inlined or cloned: of two copies, the compiler might make one that rounds differently.
#ifdef __clang__
#define ONE_COPY __attribute__((noinline))
#else
#define ONE_COPY __attribute__((noipa))
#endif
template <class Body>
ONE_COPY void run_range(const Body& body, int64_t begin, int64_t end) {
    body(begin, end);
}

// The threads that run one body together. rank: this thread's number. The first `size` of them share the work; the parts
// of the others are empty.
struct Team {
    int64_t rank, size;

    // Waits for all threads, with or without work. All must call it equally often.
    void wait() const {
        if (size == 1) return;
#pragma omp barrier
    }

    struct Range {
        int64_t begin, end;
    };
    // This thread's part of 0 <= i < count, which starts at a multiple of `grain`.
    Range part(int64_t count, int64_t grain) const {
        const int64_t grains = quotient_up(count, grain);
        return {std::min(count, grains * rank / size * grain), std::min(count, grains * (rank + 1) / size * grain)};
    }
    // At least the length of any thread's part.
    int64_t largest_part(int64_t count, int64_t grain) const {
        return quotient_up(quotient_up(count, grain), size) * grain;
    }
};

template <class Body>
ONE_COPY void run_member(const Body& body, Team team) {
    body(team);
}

// Calls body(team) on all threads at once; `size` of them share the work. A team of one is called directly.
template <class Body>
void parallel_team(int64_t size, const Body& body) {
    if (size == 1) return run_member(body, Team{0, 1});
#pragma omp parallel
    run_member(body, Team{thread_rank(), std::min(size, threads_of_region())});
}

// Tasks in rounds. In each round every owner, the number of a thread, has `count` tasks. A thread takes its own first and
// then those of others, because cores are not equally fast: those of a laptop differ, and other programs slow some of them
// down. Blumofe & Leiserson 1999, "Scheduling Multithreaded Computations by Work Stealing".
class Tasks {
   public:
    Tasks(int64_t owners, int64_t count) : count(count), counters(owners) {}

    int64_t tasks_per_round() const { return counters.size() * count; }

    // Calls body(owner, task) once for each 0 <= task < count of each owner. Each thread of the team calls it for round 0, 1
    // and so on. It returns when no task of the round is left to take, although others may still be at theirs.
    template <class Body>
    void run(Team team, int64_t round, const Body& body) {
        if (team.rank >= team.size) return;
        const int64_t owners = counters.size(), end = (round + 1) * count;
        for (int64_t i = 0; i < owners; ++i) {
            const int64_t owner = (team.rank + i) % owners;
            std::atomic<int64_t>& taken = counters[owner].taken;  // of all rounds
            int64_t next = taken.load(std::memory_order_relaxed);
            while (next < end)
                if (taken.compare_exchange_weak(next, next + 1, std::memory_order_relaxed))
                    body(owner, next++ - round * count);
        }
    }

   private:
    struct alignas(64) Counter {
        std::atomic<int64_t> taken{0};
    };
    int64_t count;
    std::vector<Counter> counters;
};

constexpr int64_t TASKS_OF_THREAD = 8;  // more would shorten the wait for the last one by little

// Calls body(begin, end) on contiguous ranges that cover 0 <= i < count, each starting at a multiple of `grain`. There are
// at most ceil(count / least), and at most TASKS_OF_THREAD for each thread. A single range is called directly, because
// OpenMP takes 0.2 us even for one thread.
template <class Body>
void parallel_ranges(int64_t count, int64_t least, int64_t grain, const Body& body) {
    const int64_t worth = std::min(quotient_up(count, grain), quotient_up(count, least));
    const int64_t size = std::max<int64_t>(1, std::min(thread_count(), worth));
    if (size == 1) return run_range(body, 0, count);
    const int64_t each = std::min(worth / size, TASKS_OF_THREAD);
    Tasks tasks(size, each);
    parallel_team(size, [&](Team team) {
        tasks.run(team, 0, [&](int64_t owner, int64_t task) {
            const Team::Range range = Team{owner * each + task, size * each}.part(count, grain);
            run_range(body, range.begin, range.end);
        });
    });
}

template <class Body>
void parallel_ranges(int64_t count, int64_t least, const Body& body) {
    parallel_ranges(count, least, 1, body);
}

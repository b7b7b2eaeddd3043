// Rounds of work that a team shares without barriers. In each round the threads first prepare one of a few buffers together,
// for instance pack a block of a matrix, and then work with it. A thread that finds no task left goes on to the next round,
// so that nobody waits for a slow one.
#pragma once
#include "cpu/runtime/parallel.h"
#include <thread>

class Rounds {
   public:
    // preparations, works: how many tasks each owner has in a round
    Rounds(int64_t owners, int64_t buffers, int64_t preparations, int64_t works)
        : buffers(buffers),
          works(works),
          preparing(owners, preparations),
          working(owners, works),
          worked_with(buffers),
          done(owners * works) {}

    // Each thread of the team calls it for round 0, 1 and so on. prepare(owner, task) may write the buffer of the round,
    // number round % buffers: all work of the round that had it before is done. work(owner, task) finds it prepared, and
    // the same task of the round before done.
    template <class Prepare, class Work>
    void run(Team team, int64_t round, const Prepare& prepare, const Work& work) {
        if (team.rank >= team.size) return;
        std::atomic<int64_t>& worked = worked_with[round % buffers];
        wait_for(worked, round / buffers * working.of_round());
        preparing.run(team, round, [&](int64_t owner, int64_t task) {
            prepare(owner, task);
            prepared.fetch_add(1, std::memory_order_release);
        });
        wait_for(prepared, (round + 1) * preparing.of_round());
        working.run(team, round, [&](int64_t owner, int64_t task) {
            std::atomic<int64_t>& rounds_done = done[owner * works + task];
            wait_for(rounds_done, round);
            work(owner, task);
            rounds_done.store(round + 1, std::memory_order_release);
            worked.fetch_add(1, std::memory_order_release);
        });
    }

   private:
    // A thread that waits for long lets others have its core, one of which may be what it waits for.
    static void wait_for(const std::atomic<int64_t>& number, int64_t least) {
        for (int64_t reads = 0; number.load(std::memory_order_acquire) < least; ++reads)
            if (reads > 100) std::this_thread::yield();
    }

    const int64_t buffers, works;
    Tasks preparing, working;
    // Finished tasks of all rounds. No preparation begins before all of the round before are finished, and no work with a
    // buffer before all work with it of earlier rounds, so that the numbers tell which rounds are finished.
    alignas(64) std::atomic<int64_t> prepared{0};
    std::vector<std::atomic<int64_t>> worked_with;  // by buffer
    std::vector<std::atomic<int64_t>> done;         // rounds of each task
};

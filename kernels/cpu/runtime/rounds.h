// Rounds of work that a team shares without barriers. In each round the threads first prepare one of a few buffers together,
// for instance pack a block of a matrix, and then work with it. A thread that finds no task left continues with the next
// round. It waits only for preparations that others have not finished, for the work of the round that had the buffer before,
// and for the round before of a task that it takes.
#pragma once
#include "cpu/runtime/parallel.h"
#include <thread>

constexpr int64_t MOST_BUFFERS = 2;  // so that threads prepare one while others still work with the one before

class Rounds {
   public:
    // preparations, tasks: of each owner in a round
    Rounds(Team team, int64_t owners, int64_t preparations, int64_t tasks)
        : buffers(team.size == 1 ? 1 : MOST_BUFFERS),
          tasks(tasks),
          preparing(owners, preparations),
          working(owners, tasks),
          finished_by_buffer(buffers),
          rounds_finished(owners * tasks) {}

    int64_t buffer_of(int64_t round) const { return round % buffers; }

    // Each thread of the team calls it for round 0, 1 and so on. prepare(owner, task) may write the round's buffer, because
    // all work with it is finished. work(owner, task) starts when all of the round is prepared and the same task of the round
    // before is finished.
    template <class Prepare, class Work>
    void run(Team team, int64_t round, const Prepare& prepare, const Work& work) {
        if (team.rank >= team.size) return;
        std::atomic<int64_t>& finished = finished_by_buffer[buffer_of(round)];
        wait_for(finished, round / buffers * working.tasks_per_round());
        preparing.run(team, round, [&](int64_t owner, int64_t task) {
            prepare(owner, task);
            prepared.fetch_add(1, std::memory_order_release);
        });
        wait_for(prepared, (round + 1) * preparing.tasks_per_round());
        working.run(team, round, [&](int64_t owner, int64_t task) {
            std::atomic<int64_t>& own_rounds = rounds_finished[owner * tasks + task];
            wait_for(own_rounds, round);
            work(owner, task);
            own_rounds.store(round + 1, std::memory_order_release);
            finished.fetch_add(1, std::memory_order_release);
        });
    }

   private:
    // Then a thread that waits yields its core, because the thread that it waits for may need it.
    static constexpr int64_t SPIN_READS = 100;
    static void wait_for(const std::atomic<int64_t>& number, int64_t least) {
        for (int64_t reads = 0; number.load(std::memory_order_acquire) < least; ++reads)
            if (reads > SPIN_READS) std::this_thread::yield();
    }

    const int64_t buffers, tasks;
    Tasks preparing, working;
    // Counts over all rounds. No preparation begins before all of the round before are finished, and no work with a buffer
    // before all work with it of earlier rounds. So the counts alone tell which rounds are finished.
    std::vector<std::atomic<int64_t>> finished_by_buffer, rounds_finished;
    alignas(64) std::atomic<int64_t> prepared{0};
};

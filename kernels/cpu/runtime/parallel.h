// How CPU kernels use threads. Every split hands whole outputs to one thread and keeps the order of each sum, so
// results do not depend on the number of threads. Without OpenMP everything runs on the calling thread.
#pragma once
#include <algorithm>
#include <cstdint>
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

// Calls body(begin, end) on contiguous ranges that cover 0 <= i < count, at most one per thread and each starting at a
// multiple of `grain`. There are at most ceil(count / least) ranges, so that each thread gets at least `least` items.
// A single range is called directly, because OpenMP takes 0.2 us even for one thread.
template <class Body>
void parallel_ranges(int64_t count, int64_t least, int64_t grain, const Body& body) {
    const int64_t grains = (count + grain - 1) / grain, worth = std::min(grains, (count + least - 1) / least);
    const int64_t ranges = std::max<int64_t>(1, std::min(thread_count(), worth));
    if (ranges == 1) return run_range(body, 0, count);
#pragma omp parallel for schedule(static, 1) num_threads(ranges)
    for (int64_t range = 0; range < ranges; ++range)
        run_range(body, grains * range / ranges * grain, std::min(count, grains * (range + 1) / ranges * grain));
}

template <class Body>
void parallel_ranges(int64_t count, int64_t least, const Body& body) {
    parallel_ranges(count, least, 1, body);
}

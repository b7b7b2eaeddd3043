// How CPU kernels use threads. Every split hands whole outputs to one thread and keeps the order of each sum, so results
// do not depend on the number of threads. Without OpenMP everything runs on the calling thread.
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

// How many items of `work` operations each are worth a thread: waking one takes some microseconds.
inline int64_t worth_a_thread(int64_t work) { return 1 + (1 << 16) / std::max<int64_t>(1, work); }

// Calls body(begin, end) on contiguous ranges that cover 0 <= i < count, at most one a thread. A range starts at a
// multiple of `grain` and holds at least that many (the last may hold fewer): less work than that is not worth a thread.
// One call for every case, one thread included: the compiler may make copies that round differently where there are two.
template <class Body>
void parallel_ranges(int64_t count, int64_t grain, const Body& body) {
    const int64_t grains = (count + grain - 1) / grain, parts = std::max<int64_t>(1, std::min(thread_count(), grains));
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (int64_t part = 0; part < parts; ++part)
        body(grains * part / parts * grain, std::min(count, grains * (part + 1) / parts * grain));
}

// set_thread_count: sets how many threads the kernels of this process use from now on. Not an op.
#include "cpu/runtime/parallel.h"

extern "C" void set_thread_count(int64_t count) {
#ifdef _OPENMP
    omp_set_num_threads(static_cast<int>(count));
#else
    (void)count;
#endif
}

// zero: x (N) = 0. Grid ceil(N / THREADS), a thread per element. Minimum traffic: N*sizeof(act) bytes.
//
// dropout: y[i] = x[i] / (1 - p) if random number i is at least p * 2^32, otherwise 0, where p = drop_probability.
// Random numbers come from Philox in formulas.h.
// The key is the seed, the counter is (first_quad + i / 4, stream, step, micro_step): see StepState in step_state.h.
// x, y (N), act. Grid ceil(N / (4 * THREADS)): a thread takes the four elements of one Philox call.
// Minimum traffic: 2*N*sizeof(act) bytes. Srivastava et al. 2014, JMLR 15.
#include "gpu/simt/vector_io.h"
#include "formulas.h"
#include "step_state.h"

KERNEL(THREADS) zero(act* x, int64_t N) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < N) narrow(x[i], 0.0f);
}

KERNEL(THREADS)
dropout(act* y, const act* x, const int32_t* counters, int64_t N, float drop_probability, int32_t stream,
        int32_t first_quad) {
    const int64_t quad = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    const uint32_t threshold = static_cast<uint32_t>(static_cast<double>(drop_probability) * 4294967296.0);
    const float scale = 1.0f / (1.0f - drop_probability);
    const StepState& state = *reinterpret_cast<const StepState*>(counters);
    const Philox random = philox(static_cast<uint32_t>(first_quad + quad), stream, state.step, state.micro_step,
                                 state.seed_low, state.seed_high);
    for (int number = 0; number < PHILOX_NUMBERS; ++number) {
        const int64_t i = quad * PHILOX_NUMBERS + number;
        if (i < N) narrow(y[i], random.word[number] >= threshold ? widen(x[i]) * scale : 0.0f);
    }
}

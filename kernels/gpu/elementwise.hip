// zero, dropout: formulas in kernels/cpu/elementwise.cpp.
// zero: grid ceil(N / THREADS), a thread an element. dropout: a thread four elements, one Philox call.
#include "platform.h"
#include "values.h"
#include "formulas.h"

constexpr int THREADS = 256;

KERNEL(THREADS) zero(act* x, int64_t N) {
    const int64_t i = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    if (i < N) narrow(x[i], 0.0f);
}

KERNEL(THREADS) dropout(act* y, const act* x, const int32_t* counters, int64_t N, float drop_probability, int32_t stream,
                        int32_t first_quad) {
    const int64_t quad = int64_t{blockIdx.x} * THREADS + threadIdx.x;
    const uint32_t threshold = static_cast<uint32_t>(static_cast<double>(drop_probability) * 4294967296.0);
    const float scale = 1.0f / (1.0f - drop_probability);
    const Philox random =
        philox(static_cast<uint32_t>(first_quad + quad), stream, counters[2], counters[3], counters[0], counters[1]);
    for (int word = 0; word < 4; ++word) {
        const int64_t i = quad * 4 + word;
        if (i < N) narrow(y[i], random.word[word] >= threshold ? widen(x[i]) * scale : 0.0f);
    }
}

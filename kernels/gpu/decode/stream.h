// The residual stream of one sequence, in the lanes of a block's first wave, and what the blocks of a cluster send to it.
#pragma once
#include "gpu/decode/resident.h"
#include "gpu/simt/reduce.h"

// Stores two neighbours in the same place of all blocks. The eight lanes that have a pair share the blocks.
DEVICE void send(const float* place, const float (&pair)[2], const Barrier& full) {
#pragma unroll
    for (int block = threadIdx.x % WAVE / 4; block < CLUSTER; block += OUTPUTS)
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [%0], {%1, %2}, [%3];" ::"r"(
                         address_in_block(place, block)),
                     "f"(pair[0]), "f"(pair[1]), "r"(address_in_block(&full, block))
                     : "memory");
}
DEVICE void send(const bf16* place, const float (&pair)[2], const Barrier& full) {
#pragma unroll
    for (int block = threadIdx.x % WAVE / 4; block < CLUSTER; block += OUTPUTS)
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
                         address_in_block(place, block)),
                     "r"(bf16_pair(pair[0], pair[1])), "r"(address_in_block(&full, block))
                     : "memory");
}

// Waits for the bytes of a round. The block's first thread is among those that wait.
DEVICE void receive(Barrier& full, int bytes, int round) {
    if (threadIdx.x == 0) full.arrive_expecting(bytes);
    full.wait(round % 2);
}

// A lane has EACH neighbouring channels, rounded to bf16 after each sum, as other kernels store them.
struct Stream {
    static constexpr int EACH = C / WAVE;
    float x[EACH];

    static DEVICE_MEMBER int channel() { return threadIdx.x % WAVE * EACH; }

    // x = the sum of two rows.
    DEVICE_MEMBER void begin(const act* row, const float (&second)[EACH]) {
        load(x, row + channel());
        for (int i = 0; i < EACH; ++i) x[i] = round_to_bf16(x[i] + second[i]);
    }

    // x += bias + the sum of rows.
    template <int COUNT>
    DEVICE_MEMBER void add(const float (&rows)[COUNT][C], const act* bias) {
        float sums[EACH] = {}, values[EACH];
#pragma unroll
        for (const auto& row : rows) {
            load(values, row + channel());
            for (int i = 0; i < EACH; ++i) sums[i] += values[i];
        }
        load(values, bias + channel());
        for (int i = 0; i < EACH; ++i) x[i] = round_to_bf16(x[i] + sums[i] + values[i]);
    }

    // y = LayerNorm of x. norm: gamma, then beta.
    DEVICE_MEMBER void normalize(act* y, const act* norm, float epsilon) const {
        float total = 0.0f, squares = 0.0f, scales[EACH], shifts[EACH];
        load(scales, norm + channel());
        load(shifts, norm + C + channel());
        for (float value : x) total += value;
        const float mean = wave_sum(total) / C;
        for (float value : x) squares += (value - mean) * (value - mean);
        const float rstd = rsqrtf(wave_sum(squares) / C + epsilon);
        for (int i = 0; i < EACH; ++i) scales[i] = (x[i] - mean) * rstd * scales[i] + shifts[i];
        store(y + channel(), scales);
    }

   private:
    static DEVICE_MEMBER float round_to_bf16(float value) {
        bf16 rounded;
        narrow(rounded, value);
        return widen(rounded);
    }
};

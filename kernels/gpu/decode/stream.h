// The residual stream of one sequence, in the lanes of a block's first wave, and what the blocks of a cluster send to it.
#pragma once
#include "gpu/decode/resident.h"
#include "gpu/simt/reduce.h"

// Stores 16 bytes in the same place of a block, whose barrier counts them.
DEVICE void send(const void* place, const Vector& vector, const Barrier& full, int block) {
    const uint32_t* word = vector.word;
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(
                     address_in_block(place, block)),
                 "r"(word[0]), "r"(word[1]), "r"(word[2]), "r"(word[3]), "r"(address_in_block(&full, block))
                 : "memory");
}

static_assert(CLUSTER == 2 * OUTPUTS, "of the lanes that have a pair, two send it");

// Sends a pair of outputs of each four lanes, as Weights::multiply finishes them, to the same place of all blocks. Lanes
// first gather 16 bytes, because the number of stores is what takes time.
DEVICE void send(const float* place, const float (&pair)[2], const Barrier& full) {
    const bool upper = threadIdx.x & 1;
    Vector vector;
    for (int e = 0; e < 2; ++e) {
        const float other = wave_exchange<1>(pair[e]);
        vector.word[e] = float_bits(upper ? other : pair[e]);
        vector.word[2 + e] = float_bits(upper ? pair[e] : other);
    }
    send(place - 2 * upper, vector, full, threadIdx.x % WAVE / 4 + OUTPUTS * upper);
}
DEVICE void send(const bf16* place, const float (&pair)[2], const Barrier& full) {
    const int lane = threadIdx.x % 4;
    const float word = bits_float(bf16_pair(pair[0], pair[1])), neighbour = wave_exchange<1>(word);
    const float low = lane & 1 ? neighbour : word, high = lane & 1 ? word : neighbour;
    const float others[2] = {wave_exchange<2>(low), wave_exchange<2>(high)};
    const float words[4] = {lane & 2 ? others[0] : low, lane & 2 ? others[1] : high, lane & 2 ? low : others[0],
                            lane & 2 ? high : others[1]};
    if (lane >= CLUSTER / OUTPUTS) return;
    Vector vector;
    for (int i = 0; i < 4; ++i) vector.word[i] = float_bits(words[i]);
    send(place - 2 * lane, vector, full, threadIdx.x % WAVE / 4 + OUTPUTS * lane);
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

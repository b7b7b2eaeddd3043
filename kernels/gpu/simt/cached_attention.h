// The softmax of one query's attention to cached keys, which the threads of a block share.
#pragma once
#include "gpu/simt/vector_io.h"
#include "formulas.h"

constexpr float MASKED = -1e30f;  // the score of a key that a query does not see

// A team of LANES lanes has a key's channels, WIDTH each. Its softmax over the keys that it has visited: the greatest
// score, the sum of exponentials relative to it, and this lane's channels of the weighted sum of values.
template <int LANES>
struct TeamSoftmax {
    float maximum = MASKED, sum = 0.0f, out[WIDTH] = {};

    // The product of the team's query and key.
    static DEVICE_MEMBER float product(const float (&query)[WIDTH], const float (&key)[WIDTH]) {
        float sum = 0.0f;
        for (int i = 0; i < WIDTH; ++i) sum += query[i] * key[i];
        return sum_of_lanes<LANES>(sum);
    }

    DEVICE_MEMBER void raise_to(float raised) {
        const float shrink = exp_of(maximum - raised);
        sum *= shrink;
        for (int i = 0; i < WIDTH; ++i) out[i] *= shrink;
        maximum = raised;
    }

    // Visits a key whose score is at most the maximum; one that is MASKED does not count.
    DEVICE_MEMBER void add(float score, const float (&value)[WIDTH]) {
        const float probability = score > MASKED ? exp_of(score - maximum) : 0.0f;
        sum += probability;
        for (int i = 0; i < WIDTH; ++i) out[i] += probability * value[i];
    }

    // Adds the softmaxes of the wave's teams, in a fixed order. Each team gets the result.
    template <int DISTANCE = LANES>
    DEVICE_MEMBER void add_teams_of_wave() {
        if constexpr (DISTANCE < WAVE) {
            raise_to(fmaxf(maximum, wave_exchange<DISTANCE>(maximum)));
            sum += wave_exchange<DISTANCE>(sum);
            for (int i = 0; i < WIDTH; ++i) out[i] += wave_exchange<DISTANCE>(out[i]);
            add_teams_of_wave<2 * DISTANCE>();
        }
    }
};

// Those of a block's waves, in shared memory, of heads of at most MOST channels.
template <int BLOCK_THREADS, int MOST>
struct WaveSoftmaxes {
    static constexpr int WAVES = BLOCK_THREADS / WAVE;
    float maximum[WAVES], sum[WAVES], out[WAVES][MOST];

    // Leaves the softmax of each wave, and waits for all threads.
    template <int LANES>
    DEVICE_MEMBER void store(TeamSoftmax<LANES> team) {
        const int wave = threadIdx.x / WAVE, lane = threadIdx.x % WAVE;
        team.add_teams_of_wave();
        if (lane < LANES) {
            maximum[wave] = team.maximum;
            sum[wave] = team.sum;
            for (int i = 0; i < WIDTH; ++i) out[wave][lane * WIDTH + i] = team.out[i];
        }
        __syncthreads();
    }

    // A channel of the attention over all keys.
    DEVICE_MEMBER float channel(int d) const {
        float greatest = MASKED, total = 0.0f, result = 0.0f;
        for (int wave = 0; wave < WAVES; ++wave) greatest = fmaxf(greatest, maximum[wave]);
        for (int wave = 0; wave < WAVES; ++wave) {
            const float factor = exp_of(maximum[wave] - greatest);
            total += sum[wave] * factor;
            result += out[wave][d] * factor;
        }
        return result / total;
    }
};

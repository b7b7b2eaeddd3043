// output_layer_loss: the output layer, the cross-entropy of its logits, and the gradient of its input, without storing
// logits. With logits = x weight^T + bias and p = softmax(logits):
//   losses[n] = -log p[n,targets[n]], in nats;  logsumexp[n] = log(sum over v of e^logits[n,v]);
//   not_target[n] = 1 - p[n,targets[n]];  dx = scale * (sum over v of p[n,v] weight[v] - weight[targets[n]]).
// x, dx (N, C), weight (V, C), bias (V), act, bias may be null; targets (N) i32; losses, logsumexp, not_target (N) f32.
//
// A block owns a tile of x and visits tiles of the weight, with an online softmax. e^(logit - maximum) is rounded to bf16
// as it becomes an operand. The target is left out of all sums: p_target - 1 = -(sum of all other probabilities), which
// would cancel in bf16. Macros: CHANNELS is C; CLUSTER, how many blocks divide the vocabulary.
// Grid ceil(N / TILE) clusters. Minimum traffic: 4*N*C + 2*V*C + 16*N bytes.
// Milakov & Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135; Wijmans et al. 2024, arXiv:2411.09009.
#include "gpu/output_layer/visits.h"

struct Columns {
    float bias[TILE];  // MASKED for columns beyond V
    DEVICE_MEMBER void set(int column, float value) { bias[column] = value; }
};

// maximum, total: of the logits that a block has visited but for the target; maximum in powers of 2. Without any,
// maximum is MASKED, and total is 0, because a masked logit is MASKED * LOG2_E in powers of 2, far below MASKED.
struct Statistics {
    float maximum[TILE], total[TILE];
    float target_logit[TILE];  // in the block that has visited the target
};

// The online softmax of a thread's two rows.
struct Softmax {
    Statistics& statistics;
    int target[2];
    float maximum[2], total[2], shrink[2];  // total: of this lane's columns; shrink: what sums so far are multiplied by

    DEVICE_MEMBER Softmax(Statistics& statistics, const int32_t* targets, int64_t first, int64_t N)
        : statistics(statistics) {
        for (int h = 0; h < 2; ++h) {
            const int64_t n = first + own_row() + 8 * h;
            target[h] = n < N ? targets[n] : -1;
            maximum[h] = MASKED;
            total[h] = 0.0f;
        }
    }

    DEVICE_MEMBER void weigh(float (&logits)[TILE / 2], const Columns& columns, int tile) {
#pragma unroll
        for (int i = 0; i < TILE / 2; ++i) logits[i] += columns.bias[sums_column(i) + i % 2];
        take_target_out(logits, tile * TILE);
        float raised[2] = {MASKED, MASKED};
#pragma unroll
        for (int i = 0; i < TILE / 2; ++i) raised[i / 2 % 2] = fmaxf(raised[i / 2 % 2], logits[i]);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            raised[h] = fmaxf(maximum[h], maximum_of_lanes<4>(raised[h]) * LOG2_E);
            shrink[h] = quick_exp2(maximum[h] - raised[h]);
            maximum[h] = raised[h];
            total[h] *= shrink[h];
        }
#pragma unroll
        for (int i = 0; i < TILE / 2; ++i) {
            logits[i] = quick_exp2(logits[i] * LOG2_E - maximum[i / 2 % 2]);
            total[i / 2 % 2] += logits[i];
        }
    }

    // Stores the logit of a row's target, if it is one of this tile's, and masks it.
    DEVICE_MEMBER void take_target_out(float (&logits)[TILE / 2], int first) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const int at = target[h] - first;
            if (at < 0 || at >= TILE) continue;
#pragma unroll
            for (int i = 0; i < TILE / 2; ++i)
                if (i / 2 % 2 == h && sums_column(i) + i % 2 == at) {
                    statistics.target_logit[own_row() + 8 * h] = logits[i];
                    logits[i] = MASKED;
                }
        }
    }

    DEVICE_MEMBER void rescale(float (&sums)[CHANNELS / 2]) const {
#pragma unroll
        for (int i = 0; i < CHANNELS / 2; ++i) sums[i] *= shrink[i / 2 % 2];
    }

    DEVICE_MEMBER void finish() const {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float sum = sum_of_lanes<4>(total[h]);
            if (threadIdx.x % 4 > 0) continue;
            statistics.maximum[own_row() + 8 * h] = maximum[h];
            statistics.total[own_row() + 8 * h] = sum;
        }
    }
};

PERSISTENT_KERNEL(OUTPUT_LAYER_THREADS, CLUSTER)
output_layer_loss(float* losses, float* logsumexp, float* not_target, act* dx, const act* x, const act* weight,
                  const act* bias, const int32_t* targets, int64_t N, int64_t /*C*/, int64_t V, float scale,
                  TENSOR_MAP x_map, TENSOR_MAP weight_map) {
    extern __shared__ __align__(1024) unsigned char bytes[];
    auto& memory = *reinterpret_cast<Memory<Columns, Statistics>*>(bytes);
    memory.init();
    const int64_t first = int64_t{blockIdx.x / CLUSTER} * TILE;
    const Tiles tiles(V);
    if (threadIdx.x >= MULTIPLYING) {
        give_up_registers<40>();
        load_all(memory, x_map, static_cast<int>(first), weight_map, tiles, [&](int64_t v) {
            if (v >= V) return MASKED;
            return bias ? widen(bias[v]) : 0.0f;
        });
        cluster_barrier();
    } else {
        take_registers<232>();
        Softmax softmax(memory.statistics, targets, first, N);
        visit_all(memory, tiles, softmax);
        softmax.finish();
        cluster_barrier();
        for_chunks([&](int row, int column) {
            const int64_t n = first + row;
            if (n >= N) return;
            const int target = targets[n];
            float maxima[CLUSTER], highest = MASKED, total = 0.0f, sums[WIDTH] = {}, of_target[WIDTH];
            load(of_target, weight + int64_t{target} * CHANNELS + column);
#pragma unroll
            for (int block = 0; block < CLUSTER; ++block) {
                maxima[block] = *in_block(memory.statistics.maximum + row, block);
                highest = fmaxf(highest, maxima[block]);
            }
#pragma unroll
            for (int block = 0; block < CLUSTER; ++block) {
                const float factor = quick_exp2(maxima[block] - highest);
                float share[WIDTH];
                load(share, in_block(memory.sums[row] + column, block));
                for (int i = 0; i < WIDTH; ++i) sums[i] += factor * share[i];
                total += factor * *in_block(memory.statistics.total + row, block);
            }
            // all relative to the larger of the maximum and the target's logit
            const float target_logit = *in_block(memory.statistics.target_logit + row, target / TILE / tiles.each);
            const float above = target_logit * LOG2_E - highest;
            const float raised = fmaxf(above, 0.0f), unit = quick_exp2(-raised);
            const float whole = total * unit + quick_exp2(above - raised), factor = scale * unit / whole;
            for (int i = 0; i < WIDTH; ++i) sums[i] = factor * (sums[i] - total * of_target[i]);
            store(dx + n * CHANNELS + column, sums);
            if (column == 0) {
                losses[n] = logf(whole) + (raised - above) * LN_2;
                logsumexp[n] = logf(whole) + (highest + raised) * LN_2;
                not_target[n] = total * unit / whole;
            }
        });
    }
    cluster_barrier();  // a block must not end while others still read its sums
}

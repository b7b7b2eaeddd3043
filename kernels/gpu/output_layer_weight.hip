// output_layer_weight: the gradients of the output layer's weight and bias, without storing those of logits. With
// logits = x weight^T + bias and logsumexp, not_target and the other letters of output_layer_loss.hip:
//   dlogits[n,v] = e^(logits[n,v] - logsumexp[n]), but -not_target[n] for v = targets[n];
//   dweight += scale * dlogits^T x;  dbias += scale * (sum over n of dlogits[n]).
// x (N, C), weight (V, C), bias (V), act, bias may be null; dweight (V, C), dbias (V) f32, dbias may be null.
//
// A block owns a tile of the weight and visits tiles of x. dlogits are rounded to bf16 as they become an operand.
// Macros: CHANNELS is C; CLUSTER, how many blocks divide the tokens.
// Grid ceil(V / TILE) clusters. Minimum traffic: 2*N*C + 10*V*C + 12*N bytes.
#include "gpu/output_layer/visits.h"

// A token: its logsumexp in powers of 2, its target, and dlogits of the target.
struct Column {
    float logsumexp, of_target;
    int32_t target;
};

struct Columns {
    float logsumexp[TILE], of_targets[TILE];
    int32_t targets[TILE];
    DEVICE_MEMBER void set(int column, const Column& token) {
        logsumexp[column] = token.logsumexp;
        of_targets[column] = token.of_target;
        targets[column] = token.target;
    }
};

struct Statistics {
    float total[TILE];  // of dlogits
};

// The gradients of a thread's two rows of logits.
struct Gradients {
    int row[2];  // of the weight
    float bias[2], total[2];

    DEVICE_MEMBER Gradients(const act* biases, int64_t first, int64_t V) {
        for (int h = 0; h < 2; ++h) {
            row[h] = static_cast<int>(first) + own_row() + 8 * h;
            bias[h] = biases && row[h] < V ? widen(biases[row[h]]) : 0.0f;
            total[h] = 0.0f;
        }
    }

    DEVICE_MEMBER void weigh(float (&logits)[TILE / 2], const Columns& columns, int /*tile*/) {
#pragma unroll
        for (int i = 0; i < TILE / 2; ++i) {
            const int column = sums_column(i) + i % 2, h = i / 2 % 2;
            logits[i] = quick_exp2((logits[i] + bias[h]) * LOG2_E - columns.logsumexp[column]);
            if (columns.targets[column] == row[h]) logits[i] = columns.of_targets[column];
            total[h] += logits[i];
        }
    }

    DEVICE_MEMBER void rescale(float (&)[CHANNELS / 2]) const {}

    DEVICE_MEMBER void finish(Statistics& statistics) const {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float sum = sum_of_lanes<4>(total[h]);
            if (threadIdx.x % 4 == 0) statistics.total[own_row() + 8 * h] = sum;
        }
    }
};

PERSISTENT_KERNEL(OUTPUT_LAYER_THREADS, CLUSTER)
output_layer_weight(float* dweight, float* dbias, const float* logsumexp, const float* not_target, const act* x,
                    const act* weight, const act* bias, const int32_t* targets, int64_t V, int64_t /*C*/, int64_t N,
                    float scale, TENSOR_MAP x_map, TENSOR_MAP weight_map) {
    extern __shared__ __align__(1024) unsigned char bytes[];
    auto& memory = *reinterpret_cast<Memory<Columns, Statistics>*>(bytes);
    memory.init();
    const int64_t first = int64_t{blockIdx.x / CLUSTER} * TILE;
    const Tiles tiles(N);
    if (threadIdx.x >= MULTIPLYING) {
        give_up_registers<40>();
        load_all(memory, weight_map, static_cast<int>(first), x_map, tiles, [&](int64_t n) {
            if (n >= N) return Column{-MASKED, 0.0f, -1};  // its dlogits are 0
            return Column{logsumexp[n] * LOG2_E, -not_target[n], targets[n]};
        });
        cluster_barrier();
    } else {
        take_registers<232>();
        Gradients gradients(bias, first, V);
        visit_all(memory, tiles, gradients);
        gradients.finish(memory.statistics);
        cluster_barrier();
        for_chunks([&](int row, int column) {
            const int64_t v = first + row;
            if (v >= V) return;
            float sums[WIDTH] = {}, before[WIDTH], total = 0.0f;
            load(before, dweight + v * CHANNELS + column);
#pragma unroll
            for (int block = 0; block < CLUSTER; ++block) {
                float share[WIDTH];
                load(share, in_block(memory.sums[row] + column, block));
                for (int i = 0; i < WIDTH; ++i) sums[i] += share[i];
                total += *in_block(memory.statistics.total + row, block);
            }
            for (int i = 0; i < WIDTH; ++i) sums[i] = before[i] + scale * sums[i];
            store(dweight + v * CHANNELS + column, sums);
            if (dbias && column == 0) dbias[v] += scale * total;
        });
    }
    cluster_barrier();  // a block must not end while others still read its sums
}

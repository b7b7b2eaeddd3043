// cross_entropy_forward: losses[n] = log(sum over v of exp(logits[n,v])) - logits[n,targets[n]], in nats;
//   ranks[n] = how many tokens come before the target when logits are sorted downwards (equal logits: lower id first).
// cross_entropy_training: the same losses, and in place of the logits their gradient times `scale`:
//   logits[n,v] = scale * (softmax(logits[n])[v] - (v == targets[n])). No second (N, V) tensor exists.
// logits (N, V) row-major; losses (N) f32, targets, ranks (N) i32. Minimum traffic: 4*N*V bytes forward, 8*N*V training.
#include "../scalar.h"
#include "act.h"
#include "parallel.h"
#include "convert.h"
#include <memory>

static float row_maximum(const act* row, int64_t V) {
    float maximum = row[0];
#pragma omp simd reduction(max : maximum)
    for (int64_t v = 0; v < V; ++v) {
        const float value = row[v];
        maximum = value > maximum ? value : maximum;
    }
    return maximum;
}

extern "C" void cross_entropy_forward(float* losses, int32_t* ranks, const act* logits, const int32_t* targets,
                                      int64_t N, int64_t V) {
    parallel_ranges(N, worth_a_thread(8 * V), [=](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
            const act* row = logits + n * V;
            const float maximum = row_maximum(row, V);
            const int64_t target = targets[n];
            const float wanted = row[target];
            float sum = 0;
            int32_t before = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t v = 0; v < V; ++v) sum += exp_f32(row[v] - maximum);
#pragma omp simd reduction(+ : before)
            for (int64_t v = 0; v < V; ++v) before += row[v] > wanted;
            for (int64_t v = 0; v < target; ++v) before += row[v] == wanted;
            losses[n] = std::log(sum) + (maximum - wanted);
            ranks[n] = before;
        }
    });
}

extern "C" void cross_entropy_training(float* losses, act* logits, const int32_t* targets, int64_t N, int64_t V,
                                       float scale) {
    parallel_ranges(N, worth_a_thread(8 * V), [=](int64_t begin, int64_t end) {
        const std::unique_ptr<float[]> memory(new float[V]);
        float* const exps = memory.get();
        for (int64_t n = begin; n < end; ++n) {
            act* row = logits + n * V;
            const float maximum = row_maximum(row, V), wanted = row[targets[n]];
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t v = 0; v < V; ++v) {
                exps[v] = exp_f32(row[v] - maximum);
                sum += exps[v];
            }
            const float factor = scale / sum;
            for (int64_t v = 0; v < V; ++v) exps[v] *= factor;
            exps[targets[n]] -= scale;
            store(row, exps, V);
            losses[n] = std::log(sum) + (maximum - wanted);
        }
    });
}

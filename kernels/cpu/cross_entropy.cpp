// cross_entropy_forward: losses[n] = log(sum over v of exp(logits[n,v])) - logits[n,targets[n]], in nats;
//   ranks[n] = how many tokens come before the target when logits are sorted downwards (equal logits: lower id first).
// cross_entropy_training: the same losses, and in place of the logits their gradient times `scale`:
//   logits[n,v] = scale * (softmax(logits[n])[v] - (v == targets[n])). No second (N, V) tensor exists.
// The CPU trains by output_layer_training; this is the op of GPUs, and what theirs is compared with.
// logits (N, V) row-major; losses (N) f32, targets, ranks (N) i32. Minimum traffic: 4*N*V bytes forward, 8*N*V training.
#include "formulas.h"
#include "cpu/runtime/call.h"
#include "cpu/select/act.h"
#include "cpu/runtime/parallel.h"
#include "cpu/simd/maximum.h"
#include "cpu/select/convert.h"
#include <memory>

extern "C" void cross_entropy_forward(float* losses, int32_t* ranks, const act* logits, const int32_t* targets,
                                      int64_t N, int64_t V) {
    parallel_ranges(N, worth_a_thread(8 * V), [=](int64_t begin, int64_t end) {
        const std::unique_ptr<float[]> memory(new float[V]);
        float* const row = memory.get();
        for (int64_t n = begin; n < end; ++n) {
            load(row, logits + n * V, V);
            const float maximum = maximum_of(row, V);
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
        float* const row = memory.get();
        for (int64_t n = begin; n < end; ++n) {
            load(row, logits + n * V, V);
            const float maximum = maximum_of(row, V), wanted = row[targets[n]];
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t v = 0; v < V; ++v) {
                row[v] = exp_f32(row[v] - maximum);
                sum += row[v];
            }
            const float factor = scale / sum;
            for (int64_t v = 0; v < V; ++v) row[v] *= factor;
            row[targets[n]] -= scale;
            store(logits + n * V, row, V);
            losses[n] = std::log(sum) + (maximum - wanted);
        }
    });
}

CALLABLE(cross_entropy_forward)
CALLABLE(cross_entropy_training)

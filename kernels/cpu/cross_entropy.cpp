// cross_entropy_forward: losses[n] = log(sum over v of exp(logits[n,v])) - logits[n,targets[n]], in nats;
//   ranks[n] = the number of tokens with a greater logit than the target; ties go to the lower id.
// cross_entropy_training: the same losses, and overwrites the logits by their gradient times `scale`:
//   logits[n,v] = scale * (softmax(logits[n])[v] - (v == targets[n])). No second (N, V) tensor exists.
// logits (N, V) row-major, act; losses (N) f32; targets, ranks (N) i32; sums in f32, relative to the row's maximum.
// Minimum traffic: N*V*sizeof(act) bytes forward, twice that in training.
// A CPU trains by output_layer_training. cross_entropy_training is the op of GPUs; tests compare theirs with this one.
#include "formulas.h"
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/act.h"
#include "cpu/select/convert.h"
#include "cpu/simd/maximum.h"
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
            const float target_logit = row[target];
            float sum = 0;
            int32_t before = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t v = 0; v < V; ++v) sum += exp_f32(row[v] - maximum);
#pragma omp simd reduction(+ : before)
            for (int64_t v = 0; v < V; ++v) before += row[v] > target_logit;
            for (int64_t v = 0; v < target; ++v) before += row[v] == target_logit;
            losses[n] = std::log(sum) + (maximum - target_logit);
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
            const float maximum = maximum_of(row, V), target_logit = row[targets[n]];
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
            losses[n] = std::log(sum) + (maximum - target_logit);
        }
    });
}

CALLABLE(cross_entropy_forward)
CALLABLE(cross_entropy_training)

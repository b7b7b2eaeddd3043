// Rotary positions: a query and a key are rotated by their positions, so that their product depends on the distance.
// Su et al. 2021, arXiv:2104.09864. Channel i of the first half of a head pairs with channel i + D/2.
//
// rotation_table: the cosines, then the sines, of the angles p * base^(-2i/D) for 0 <= i < D/2, where p = starts[b] + s
//   is a position. rotations (B, S, D) f32; starts (B) i32; D even. Angles are computed in f64.
//   Minimum traffic: 4*B*S*D bytes.
//
// rotary_forward: qkv[b,s] = rotated queries, rotated keys, values. packed (B, S, G, D) row-major, act, holds H queries,
//   then (G - H)/2 keys, then as many values. qkv (B, S, 3, H, D), act: with fewer keys than queries, each key and value
//   is repeated for H / keys neighbouring queries (grouped-query attention: Ainslie et al. 2023, arXiv:2305.13245).
//   Minimum traffic: B*S*(3*H + G)*D*sizeof(act) + 4*B*S*D bytes.
//
// rotary_backward: dpacked from dqkv: rotates back, and adds up the gradients of repeated keys and values.
//   The same traffic.
#include "cpu/runtime/call.h"
#include "cpu/runtime/parallel.h"
#include "cpu/select/convert.h"
#include <cmath>
#include <vector>

extern "C" void rotation_table(float* rotations, const int32_t* starts, int64_t B, int64_t S, int64_t D, float base) {
    parallel_ranges(S, worth_a_thread(64 * D), [=](int64_t begin, int64_t end) {
        std::vector<double> frequencies(D / 2);
        for (int64_t i = 0; i < D / 2; ++i) frequencies[i] = std::pow(static_cast<double>(base), -2.0 * i / D);
        for (int64_t s = begin; s < end; ++s)
            for (int64_t b = 0; b < B; ++b) {
                float* const row = rotations + (b * S + s) * D;
                if (b > 0 && starts[b] == starts[b - 1]) {  // the sequence before has the same position
                    std::copy_n(row - S * D, D, row);
                    continue;
                }
                const int64_t position = starts[b] + s;
                for (int64_t i = 0; i < D / 2; ++i) {
                    row[i] = static_cast<float>(std::cos(position * frequencies[i]));
                    row[D / 2 + i] = static_cast<float>(std::sin(position * frequencies[i]));
                }
            }
    });
}

// y = x rotated by the angles of `rotations` (D), backwards if direction is -1.
static void rotate(float* y, const float* x, const float* rotations, int64_t D, float direction) {
    const int64_t half = D / 2;
    const float *cosines = rotations, *sines = rotations + half;
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        const float sine = direction * sines[i], first = x[i], second = x[half + i];
        y[i] = first * cosines[i] - second * sine;
        y[half + i] = second * cosines[i] + first * sine;
    }
}

extern "C" void rotary_forward(act* qkv, const act* packed, const float* rotations, int64_t B, int64_t S, int64_t H,
                               int64_t D, int64_t G) {
    const int64_t keys = (G - H) / 2, group = H / keys;
    parallel_ranges(B * S, worth_a_thread(6 * H * D), [=](int64_t begin, int64_t end) {
        std::vector<float> row(D), rotated(D);
        for (int64_t n = begin; n < end; ++n) {
            const act* const heads = packed + n * G * D;
            act* const queries = qkv + n * 3 * H * D;
            for (int64_t g = 0; g < H + keys; ++g) {
                load(row.data(), heads + g * D, D);
                rotate(rotated.data(), row.data(), rotations + n * D, D, 1.0f);
                const int64_t first = g < H ? g : H + (g - H) * group, copies = g < H ? 1 : group;
                for (int64_t h = first; h < first + copies; ++h) store(queries + h * D, rotated.data(), D);
            }
            for (int64_t h = 0; h < H; ++h)
                std::copy_n(heads + (H + keys + h / group) * D, D, queries + (2 * H + h) * D);
        }
    });
}

extern "C" void rotary_backward(act* dpacked, const act* dqkv, const float* rotations, int64_t B, int64_t S, int64_t G,
                                int64_t D, int64_t H) {
    const int64_t keys = (G - H) / 2, group = H / keys;
    parallel_ranges(B * S, worth_a_thread(6 * H * D), [=](int64_t begin, int64_t end) {
        std::vector<float> row(D), sum(D), rotated(D);
        for (int64_t n = begin; n < end; ++n) {
            const act* const dqueries = dqkv + n * 3 * H * D;
            for (int64_t g = 0; g < G; ++g) {
                const int64_t first = g < H ? g : H + (g - H) * group, copies = g < H ? 1 : group;
                load(sum.data(), dqueries + first * D, D);
                for (int64_t h = first + 1; h < first + copies; ++h) {
                    load(row.data(), dqueries + h * D, D);
                    for (int64_t d = 0; d < D; ++d) sum[d] += row[d];
                }
                act* const target = dpacked + (n * G + g) * D;
                if (g < H + keys) {
                    rotate(rotated.data(), sum.data(), rotations + n * D, D, -1.0f);
                    store(target, rotated.data(), D);
                } else {
                    store(target, sum.data(), D);
                }
            }
        }
    });
}

CALLABLE(rotation_table)
CALLABLE(rotary_forward)
CALLABLE(rotary_backward)

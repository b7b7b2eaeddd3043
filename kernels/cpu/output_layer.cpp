// output_layer_training: the output layer, the cross-entropy of its logits, and the backward passes of both. With
//   logits = x weight^T + bias,  p = softmax(logits),  dlogits[n,v] = scale * (p[n,v] - (v == targets[n])):
//   losses[n] = -log p[n,targets[n]], in nats;  dx = dlogits weight;  dweight += dlogits^T x;  dbias += sum over n of dlogits.
// x, dx (N, C), weight (V, C), dweight (V, C) f32, targets (N) i32, bias, dbias (V) or null. To work in: exponentials, at least
// N / 32 strips (K, V, 32), and scaled (N, C). Operations: 6*N*C*V. Minimum traffic: x, dx and the weight once, dweight and
// what there is to work in twice.
//
// No logits are stored. Rows n are columns here: a thread takes a block of them and goes over the vocabulary by chunks, whose
// logits it makes a slice and a strip of columns at a time, in the first cache. Their exponentials are relative to a reference,
// a logit of the column seen early; what they add up to, and their product with the chunk of the weight, need no second look:
// dlogits = exponentials * scale / total, but for the target's, whose part of dx comes last, from f32. They are kept for dweight
// alone, their product with x * scale / total. Should a total become too large, then what there is so far is brought to a
// higher reference.
// Milakov & Gimelshein 2018, arXiv:1805.02867 (sums while the maximum is not known yet); Dao et al. 2022, arXiv:2205.14135 (with
// a product behind them); Wijmans et al. 2024, arXiv:2411.09009 (for an output layer).
// A thread owns whole columns, then whole rows of dweight, and chunks depend on C alone: no result depends on the number of
// threads.
#include "../scalar.h"
#include "call.h"
#include "convert.h"
#include "pieces.h"
#include "product/blocks.h"
#include <algorithm>
#include <cmath>
#include <vector>

// Logits of so many rows of the weight in the first cache; chunks of the weight and blocks of dx in the second, in elements.
constexpr int64_t SLICE = 96, CHUNK_ELEMENTS = 1 << 17, MOST_SLICES = 5, BLOCK_ELEMENTS = 1 << 18;
static_assert(SLICE % ROWS == 0 && PANEL == 2 * LANES && 32 % PANEL == 0);
constexpr float TOO_LARGE = 1e26f;  // a product of it and a weight is far from the largest f32

// A strip of columns, and what is known of each so far; its sums (C, PANEL) are dx without the last factor.
struct Strip {
    alignas(64) float reference[PANEL], total[PANEL], wanted[PANEL];
    int64_t first, count;
    float* sums;
    act* exponentials;  // (V, PANEL)
};

// From logits (rows, PANEL) to exponentials, which are added to the totals.
__attribute__((noinline)) static void exponentiate(Strip& strip, const float* logits, int64_t rows, act* exponentials) {
    alignas(64) float values[PANEL], total[PANEL], reference[PANEL];
    std::copy_n(strip.total, PANEL, total);
    std::copy_n(strip.reference, PANEL, reference);
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t half = 0; half < PANEL; half += LANES)
#pragma omp simd
            for (int64_t j = half; j < half + LANES; ++j) {
                values[j] = exp_f32(logits[r * PANEL + j] - reference[j]);
                total[j] += values[j];
            }
        store(exponentials + r * PANEL, values, PANEL);
    }
    std::copy_n(total, PANEL, strip.total);
}

// greatest = the maximum of each column of logits (rows, PANEL).
static void greatest_of_columns(float* greatest, const float* logits, int64_t rows) {
    std::copy_n(logits, PANEL, greatest);
    for (int64_t r = 1; r < rows; ++r)
        for (int64_t j = 0; j < PANEL; ++j) greatest[j] = std::max(greatest[j], logits[r * PANEL + j]);
}

static bool any_too_large(const float* totals) {
    return std::any_of(totals, totals + PANEL, [](float total) { return total > TOO_LARGE; });
}

// Multiplies columns (rows, PANEL) by a factor each.
static void scale_columns(act* columns, int64_t rows, const float* factors) {
    float values[PANEL];
    for (int64_t r = 0; r < rows; ++r) {
        load(values, columns + r * PANEL, PANEL);
        for (int64_t j = 0; j < PANEL; ++j) values[j] *= factors[j];
        store(columns + r * PANEL, values, PANEL);
    }
}

struct OutputLayer {
    int64_t N, C, V;
    float scale;
    const act *x, *weight, *bias;
    const int32_t* targets;
    float *losses, *factors;  // scale / total
    act *dx, *scaled, *exponentials;

    int64_t chunk() const { return std::clamp<int64_t>(CHUNK_ELEMENTS / (C * PARTS) / SLICE, 1, MOST_SLICES) * SLICE; }
    int64_t block() const { return std::max<int64_t>(1, BLOCK_ELEMENTS / C / PANEL) * PANEL; }

    void columns(int64_t first, int64_t last) const;
    void slice(Strip& strip, float* logits, int64_t row, int64_t rows, int64_t summed) const;
    void raise_references(Strip& strip, const float* before, const float* logits, int64_t row, int64_t rows,
                          int64_t summed) const;
    void finish(const Strip& strip) const;
};

// All of the vocabulary for the columns first to last.
void OutputLayer::columns(int64_t first, int64_t last) const {
    const int64_t count = (last - first + PANEL - 1) / PANEL, most = chunk(), sums_size = padded(C, ROWS) * PANEL;
    Pieces pieces(count * (panel_size(C) + sums_size) + panel_size(most) + left_size(most, C) + left_size(C, most) +
                  SLICE * PANEL + 6 * Pieces::LINE);
    Word *const inputs = pieces.take(count * panel_size(C)), *const panel = pieces.take(panel_size(most));
    Word *const rows_copy = pieces.take(left_size(most, C)), *const channels_copy = pieces.take(left_size(C, most));
    float *const sums = pieces.take(count * sums_size), *const logits = pieces.take(SLICE * PANEL);
    std::vector<Strip> strips(count);
    for (int64_t s = 0; s < count; ++s) {
        const int64_t column = first + s * PANEL, width = std::min<int64_t>(PANEL, last - column);
        strips[s] = {{}, {}, {}, column, width, sums + s * sums_size, exponentials + column * V};
    }
    pack_right(inputs, {x + first * C, 1, C}, C, last - first);
    for (int64_t v = 0; v < V; v += most) {
        const int64_t rows = std::min(most, V - v);
        const Left by_rows = pack_left(rows_copy, {weight + v * C, C, 1}, rows, C);
        const Left by_channels = pack_left(channels_copy, {weight + v * C, 1, C}, C, rows);
        for (int64_t s = 0; s < count; ++s) {
            Left left = by_rows;
            for (int64_t top = 0; top < rows; top += SLICE, left.data += SLICE / ROWS * left.strip_stride) {
                const int64_t height = std::min(SLICE, rows - top);
                multiply(left, inputs + s * panel_size(C), panel_size(C), logits, PANEL, height, PANEL, C, false);
                slice(strips[s], logits, v + top, height, v);
            }
            pack_right(panel, {strips[s].exponentials + v * PANEL, PANEL, 1}, rows, PANEL);
            multiply(by_channels, panel, panel_size(rows), strips[s].sums, PANEL, C, PANEL, rows, v > 0);
        }
    }
    for (const Strip& strip : strips) finish(strip);
}

// Takes the products of the vocabulary's `rows` from `row` on; those before `summed` are in the strip's sums.
void OutputLayer::slice(Strip& strip, float* logits, int64_t row, int64_t rows, int64_t summed) const {
    for (int64_t r = 0; bias && r < rows; ++r)
        for (int64_t j = 0; j < PANEL; ++j) logits[r * PANEL + j] += static_cast<float>(bias[row + r]);
    if (row == 0) greatest_of_columns(strip.reference, logits, rows);
    float before[PANEL];
    std::copy_n(strip.total, PANEL, before);
    exponentiate(strip, logits, rows, strip.exponentials + row * PANEL);
    if (any_too_large(strip.total)) raise_references(strip, before, logits, row, rows, summed);
    for (int64_t j = 0; j < strip.count; ++j) {
        const int64_t at = targets[strip.first + j] - row;
        if (at < 0 || at >= rows) continue;
        strip.wanted[j] = logits[at * PANEL + j];
        strip.exponentials[(row + at) * PANEL + j] = 0.0f;  // dx takes it from `finish`, where it is not rounded: p - 1 is small
    }
}

// A slice again whose exponentials are too large, by higher references; before: the totals without it.
void OutputLayer::raise_references(Strip& strip, const float* before, const float* logits, int64_t row, int64_t rows,
                                   int64_t summed) const {
    float greatest[PANEL], raised[PANEL];
    greatest_of_columns(greatest, logits, rows);
    if (std::equal(greatest, greatest + PANEL, strip.reference, [](float a, float b) { return !(a > b); })) return;  // NaN
    for (int64_t j = 0; j < PANEL; ++j) {
        const float reference = std::max(strip.reference[j], greatest[j]);
        raised[j] = exp_f32(strip.reference[j] - reference);
        strip.reference[j] = reference;
        strip.total[j] = before[j] * raised[j];
    }
    scale_columns(strip.exponentials, row, raised);
    for (int64_t c = 0; summed && c < C; ++c)
        for (int64_t j = 0; j < PANEL; ++j) strip.sums[c * PANEL + j] *= raised[j];
    exponentiate(strip, logits, rows, strip.exponentials + row * PANEL);
}

// What takes all of the vocabulary: losses, dx, the targets' exponentials, and what dweight's product has on its other side.
void OutputLayer::finish(const Strip& strip) const {
    std::vector<float> row(C), target_row(C);
    for (int64_t j = 0; j < strip.count; ++j) {
        const int64_t n = strip.first + j, target = targets[n];
        const float above = strip.wanted[j] - strip.reference[j], total = strip.total[j], factor = scale / total;
        const float of_target = exp_f32(above) - total;
        losses[n] = std::log(total) - above;
        factors[n] = factor;
        strip.exponentials[target * PANEL + j] = of_target;
        load(target_row.data(), weight + target * C, C);
        for (int64_t c = 0; c < C; ++c) row[c] = factor * (strip.sums[c * PANEL + j] + of_target * target_row[c]);
        store(dx + n * C, row.data(), C);
        load(row.data(), x + n * C, C);
        for (int64_t c = 0; c < C; ++c) row[c] *= factor;
        store(scaled + n * C, row.data(), C);
    }
}

extern "C" void output_layer_training(float* losses, act* dx, float* dweight, float* dbias, act* exponentials, act* scaled,
                                      const act* x, const act* weight, const act* bias, const int32_t* targets, int64_t N,
                                      int64_t C, int64_t V, int64_t /*K*/, float scale) {
    std::vector<float> factors(N);
    const OutputLayer layer{N, C, V, scale, x, weight, bias, targets, losses, factors.data(), dx, scaled, exponentials};
    parallel_ranges(N, PANEL, PANEL, [&](int64_t begin, int64_t end) {
        begin_tiles();
        const int64_t blocks = (end - begin + layer.block() - 1) / layer.block();
        const int64_t block = padded((end - begin + blocks - 1) / blocks, PANEL);
        for (int64_t first = begin; first < end; first += block) layer.columns(first, std::min(end, first + block));
    });
    add_product(dweight, V, C, N, {exponentials, PANEL, 1, (V - 1) * PANEL}, {scaled, C, 1});
    if (dbias)
        parallel_ranges(V, worth_a_thread(N), [&](int64_t begin, int64_t end) {
            std::vector<float> row(padded(N, PANEL));
            for (int64_t v = begin; v < end; ++v) {
                float sum = 0;
                for (int64_t n = 0; n < N; n += PANEL) load(row.data() + n, exponentials + n * V + v * PANEL, PANEL);
#pragma omp simd reduction(+ : sum)
                for (int64_t n = 0; n < N; ++n) sum += row[n] * factors[n];
                dbias[v] += sum;
            }
        });
}

CALLABLE(output_layer_training)

// output_layer_training: the output layer, the cross-entropy of its logits, and the backward passes of both. With
//   logits = x weight^T + bias,  p = softmax(logits),  dlogits[n,v] = scale * (p[n,v] - (v == targets[n])):
//   losses[n] = -log p[n,targets[n]], in nats;  dx = dlogits weight;  dweight += dlogits^T x;  dbias += sum over n of dlogits.
// x, dx (N, C), weight (V, C), dweight (V, C) f32, targets (N) i32, bias, dbias (V) or null. To work in: exponentials (W), for each 32
// tokens a strip of V rows, filled up to 32, with room for 32 numbers, in f32 for 48; and scaled (N, C). Operations: 6*N*C*V. Minimum
// traffic: x, dx and the weight once, dweight and what there is to work in twice.
//
// No logits are stored. Rows n are columns here: a thread takes a block of them and goes over the vocabulary by chunks, whose
// logits it makes a slice and a strip of columns at a time, in the first cache. While tiles make one slice, vectors take the
// one before: exponentials, relative to a reference, a logit of the column seen early; they become at once B's words of their
// product with the chunk of the weight, and A's of dweight's, with x * scale / total. What they add up to, and dx, need no
// second look: dlogits = exponentials * scale / total, but for the target's, whose part of all comes last, from f32.
// Should a total become too large, then what there is so far is brought to a higher reference.
// Milakov & Gimelshein 2018, arXiv:1805.02867 (sums while the maximum is not known yet); Dao et al. 2022, arXiv:2205.14135 (with
// a product behind them); Wijmans et al. 2024, arXiv:2411.09009 (for an output layer).
// A thread owns whole columns, then whole rows of dweight, and chunks depend on C alone: no result depends on the number of
// threads.
#include "formulas.h"
#include "cpu/runtime/call.h"
#include "cpu/select/convert.h"
#include "cpu/select/dual_operand.h"
#include "cpu/runtime/scratch.h"
#include "cpu/gemm/blocked_product.h"
#include <algorithm>
#include <cmath>
#include <vector>

// Logits of so many rows of the weight in the first cache, a chunk of it in the second. Each block of dx packs all of the weight
// anew, so a large one pays though its sums do not stay there. In elements, but MOST_ROWS of a chunk.
constexpr int64_t SLICE = padded(32, ROWS), CHUNK_ELEMENTS = 1 << 17, MOST_ROWS = 480, BLOCK_ELEMENTS = 1 << 19;
static_assert(PANEL == 2 * LANES && 32 % PANEL == 0);
constexpr float TOO_LARGE = 1e26f;  // a product of it and a weight is far from the largest f32
constexpr float LOWEST = -1e30f;    // as a logit: its exponential is the least there is, 1.6e-38

// A strip of columns, and what is known of each so far, without its target; sums (C, PANEL) are dx without the last factor.
struct Strip {
    alignas(64) float reference[PANEL], total[PANEL], wanted[PANEL];
    int64_t first, count;
    float* sums;

    int64_t number() const { return first / PANEL; }
};

// What becomes of a slice: the logits (rows, PANEL) of rows `row` on become exponentials, a row of words at a time. They are
// added to the strip's totals, kept, and put into the chunk's panel, `at` rows of words from its beginning.
struct Exponentiation {
    const Kept* kept;
    Strip* strip;
    const float* logits;
    Word* panel;
    int64_t row, at, words = 0, word = 0;
    float totals_before[PANEL] = {};

    void operator()() {
        if (word == words) return;
        alignas(64) float values[TERMS][PANEL];
        const int64_t first = first_term(word);
        for (int term = 0; term < TERMS; ++term) {
            const float* const source = logits + (first + term * TERM_DISTANCE) * PANEL;
            for (int64_t half = 0; half < PANEL; half += LANES)
#pragma omp simd
                for (int64_t j = half; j < half + LANES; ++j) {
                    values[term][j] = exp_f32(source[j] - strip->reference[j]);
                    strip->total[j] += values[term][j];
                }
        }
        for (int term = 0; term < TERMS; ++term) {
            const float* const pair = values[term];
            kept->put(strip->number(), row + first + term * TERM_DISTANCE, vector_at(pair), vector_at(pair + LANES));
        }
        for (int64_t half = 0; half < PANEL; half += LANES)
            put_words(panel, at + word, half, vector_at(values[0] + half), vector_at(values[TERMS - 1] + half));
        ++word;
    }
    void rest() {
        while (word < words) (*this)();
    }
};

// greatest = the maximum of each column of logits (rows, PANEL).
static void greatest_of_columns(float* greatest, const float* logits, int64_t rows) {
    std::copy_n(logits, PANEL, greatest);
    for (int64_t r = 1; r < rows; ++r)
        for (int64_t j = 0; j < PANEL; ++j) greatest[j] = std::max(greatest[j], logits[r * PANEL + j]);
}

static bool any_too_large(const float* totals) {
    return std::any_of(totals, totals + PANEL, [](float total) { return total > TOO_LARGE; });
}

struct OutputLayer {
    int64_t N, C, V;
    float scale;
    const act *x, *weight, *bias;
    const int32_t* targets;
    float *losses, *factors;  // what an exponential is multiplied by, to be a gradient
    act *dx, *scaled;
    Kept exponentials;

    int64_t chunk() const { return std::clamp(CHUNK_ELEMENTS / (C * PARTS) / SLICE, int64_t{1}, MOST_ROWS / SLICE) * SLICE; }
    int64_t block() const { return std::max<int64_t>(1, BLOCK_ELEMENTS / C / PANEL) * PANEL; }

    void columns(int64_t first, int64_t last) const;
    Exponentiation slice(Strip& strip, float* logits, int64_t row, int64_t rows, int64_t chunk, Word* panel) const;
    void end(Exponentiation& slice, int64_t chunk) const;
    void finish(const Strip& strip) const;
};

// All of the vocabulary for the columns first to last.
void OutputLayer::columns(int64_t first, int64_t last) const {
    const int64_t count = (last - first + PANEL - 1) / PANEL, most = chunk(), sums_size = padded(C, ROWS) * PANEL;
    Pieces pieces(count * (panel_size(C) + sums_size) + panel_size(most) + left_size(most, C) + left_size(C, most) +
                  2 * SLICE * PANEL + 6 * LINE);
    Word *const inputs = pieces.take(count * panel_size(C)), *const panel = pieces.take(panel_size(most));
    Word *const rows_copy = pieces.take(left_size(most, C)), *const channels_copy = pieces.take(left_size(C, most));
    float *const sums = pieces.take(count * sums_size), *const logits = pieces.take(2 * SLICE * PANEL);
    std::vector<Strip> strips(count);
    for (int64_t s = 0; s < count; ++s) {
        const int64_t column = first + s * PANEL, width = std::min<int64_t>(PANEL, last - column);
        strips[s] = {{}, {}, {}, column, width, sums + s * sums_size};
    }
    pack_right(inputs, {x + first * C, 1, C}, C, last - first);
    for (int64_t v = 0; v < V; v += most) {
        const int64_t rows = std::min(most, V - v);
        const Left by_rows = pack_left(rows_copy, {weight + v * C, C, 1}, rows, C);
        const Left by_channels = pack_left(channels_copy, {weight + v * C, 1, C}, C, rows);
        for (int64_t s = 0; s < count; ++s) {
            Left left = by_rows;
            Exponentiation before{};
            for (int64_t top = 0; top < rows; top += SLICE, left.data += SLICE / ROWS * left.strip_stride) {
                const int64_t height = std::min(SLICE, rows - top);
                float* const target = logits + top / SLICE % 2 * SLICE * PANEL;
                multiply(left, inputs + s * panel_size(C), panel_size(C), target, PANEL, height, PANEL, C, false, before);
                end(before, v);
                before = slice(strips[s], target, v + top, height, v, panel);
            }
            end(before, v);
            multiply(by_channels, panel, panel_size(rows), strips[s].sums, PANEL, C, PANEL, rows, v > 0);
        }
    }
    for (const Strip& strip : strips) finish(strip);
}

// What is to be done with the products of the vocabulary's `rows` from `row` on, of a chunk; the targets' are taken out.
Exponentiation OutputLayer::slice(Strip& strip, float* logits, int64_t row, int64_t rows, int64_t chunk,
                                  Word* panel) const {
    const int64_t whole = padded(rows, STEP);
    for (int64_t r = 0; bias && r < rows; ++r)
        for (int64_t j = 0; j < PANEL; ++j) logits[r * PANEL + j] += static_cast<float>(bias[row + r]);
    if (row == 0) greatest_of_columns(strip.reference, logits, rows);
    std::fill(logits + rows * PANEL, logits + whole * PANEL, LOWEST);
    for (int64_t j = 0; j < strip.count; ++j) {
        const int64_t at = targets[strip.first + j] - row;
        if (at < 0 || at >= rows) continue;
        strip.wanted[j] = logits[at * PANEL + j];
        logits[at * PANEL + j] = LOWEST;
    }
    Exponentiation next{&exponentials, &strip, logits, panel, row, (row - chunk) / TERMS, whole / TERMS};
    std::copy_n(strip.total, PANEL, next.totals_before);
    return next;
}

// Ends a slice, and if that made totals too large, once more with higher references.
void OutputLayer::end(Exponentiation& slice, int64_t chunk) const {
    slice.rest();
    if (!slice.strip || !any_too_large(slice.strip->total)) return;
    Strip& strip = *slice.strip;
    alignas(64) float greatest[PANEL], raised[PANEL];
    greatest_of_columns(greatest, slice.logits, slice.words * TERMS);
    if (std::equal(greatest, greatest + PANEL, strip.reference, [](float a, float b) { return !(a > b); })) return;  // NaN
    for (int64_t j = 0; j < PANEL; ++j) {
        const float reference = std::max(strip.reference[j], greatest[j]);
        raised[j] = exp_f32(strip.reference[j] - reference);
        strip.reference[j] = reference;
        strip.total[j] = slice.totals_before[j] * raised[j];
    }
    const auto rescale = [&](int64_t row, Vector (&columns)[2]) {
        exponentials.get(strip.number(), row, columns[0], columns[1]);
        for (int half = 0; half < 2; ++half) columns[half] *= vector_at(raised + half * LANES);
        exponentials.put(strip.number(), row, columns[0], columns[1]);
    };
    Vector terms[2][2];
    for (int64_t row = 0; row < chunk; ++row) rescale(row, terms[0]);
    for (int64_t word = 0; word < slice.at; ++word) {
        for (int term = 0; term < TERMS; ++term) rescale(chunk + first_term(word) + term * TERM_DISTANCE, terms[term]);
        for (int half = 0; half < 2; ++half) put_words(slice.panel, word, half * LANES, terms[0][half], terms[TERMS - 1][half]);
    }
    for (int64_t c = 0; chunk && c < C; ++c)
        for (int64_t j = 0; j < PANEL; ++j) strip.sums[c * PANEL + j] *= raised[j];
    slice.word = 0;
    slice.rest();
}

// What takes all of the vocabulary: losses, dx, the targets' exponentials, and what dweight's product has on its other side.
void OutputLayer::finish(const Strip& strip) const {
    std::vector<float> row(C), target_row(C);
    for (int64_t j = 0; j < strip.count; ++j) {
        const int64_t n = strip.first + j, target = targets[n];
        const float others = strip.total[j], above = strip.wanted[j] - strip.reference[j], highest = std::max(above, 0.0f);
        const float unit = exp_f32(-highest), total = others * unit + exp_f32(above - highest), factor = scale * unit / total;
        losses[n] = std::log(total) + (highest - above);
        factors[n] = factor;
        alignas(64) float columns[PANEL];  // the target's p - 1 is what the others have
        exponentials.get(strip.number(), target, vector_at(columns), vector_at(columns + LANES));
        columns[j] = -others;
        exponentials.put(strip.number(), target, vector_at(columns), vector_at(columns + LANES));
        load(target_row.data(), weight + target * C, C);
        for (int64_t c = 0; c < C; ++c) row[c] = factor * (strip.sums[c * PANEL + j] - others * target_row[c]);
        store(dx + n * C, row.data(), C);
        load(row.data(), x + n * C, C);
        for (int64_t c = 0; c < C; ++c) row[c] *= factor;
        store(scaled + n * C, row.data(), C);
    }
}

extern "C" void output_layer_training(float* losses, act* dx, float* dweight, float* dbias, act* exponentials, act* scaled,
                                      const act* x, const act* weight, const act* bias, const int32_t* targets, int64_t N,
                                      int64_t C, int64_t V, int64_t /*W*/, float scale) {
    std::vector<float> factors(padded(N, PANEL));
    const Kept kept(exponentials, padded(V, 32));
    const OutputLayer layer{N, C, V, scale, x, weight, bias, targets, losses, factors.data(), dx, scaled, kept};
    parallel_ranges(N, PANEL, PANEL, [&](int64_t begin, int64_t end) {
        begin_tiles();
        const int64_t blocks = (end - begin + layer.block() - 1) / layer.block();
        const int64_t block = padded((end - begin + blocks - 1) / blocks, PANEL);
        for (int64_t first = begin; first < end; first += block) layer.columns(first, std::min(end, first + block));
    });
    add_product(dweight, V, C, N, kept, {scaled, C, 1});
    if (dbias)
        parallel_ranges(V, worth_a_thread(N), [&](int64_t begin, int64_t end) {
            for (int64_t v = begin; v < end; ++v) {
                Vector sums[2] = {};
                for (int64_t n = 0; n < N; n += PANEL) {
                    Vector left, right;
                    kept.get(n / PANEL, v, left, right);
                    sums[0] += left * vector_at(factors.data() + n);
                    sums[1] += right * vector_at(factors.data() + n + LANES);
                }
                sums[0] += sums[1];
                float sum = 0;
                for (int lane = 0; lane < LANES; ++lane) sum += sums[0][lane];
                dbias[v] += sum;
            }
        });
}

CALLABLE(output_layer_training)

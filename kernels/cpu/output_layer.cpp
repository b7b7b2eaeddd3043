// output_layer_training: the output layer, the cross-entropy of its logits, and the backward passes of both. With
//   logits = x weight^T + bias,  p = softmax(logits),  dlogits[n,v] = scale * (p[n,v] - (v == targets[n])):
//   losses[n] = -log p[n,targets[n]], in nats;  dx = dlogits weight;
//   dweight += dlogits^T x;  dbias += sum over n of dlogits[n].
// x, dx (N, C), weight (V, C), act; dweight (V, C) f32; targets (N) i32; bias (V), act, or null; dbias (V) f32 or null.
// Scratch: exponentials (W), a DualOperand (V, N) padded as in gemm/dual_operand_size.h; scaled (N, C), act.
// Operations: 6*N*C*V. Minimum traffic: x, dx and weight once; dweight, exponentials and scaled twice.
//
// The op never stores logits. The threads take a block of tokens and loop over the vocabulary in chunks that fit L2:
//
//              panels of NR tokens
//             +-------+-------+---     One slice, SLICE vocabulary rows x NR tokens, is computed in L1 while the vector
//   chunk of  | slice | slice |        units exponentiate the slice before: e = exp(logit - reference).
//   weight    +-------+-------+---     Each e is packed at once into
//   (in L2)   | slice | slice |          (1) the B operand of  dx^T += weight_chunk^T e,  run after each chunk;
//             +-------+-------+---       (2) the stored A operand of  dweight += e (factor x),  run at the end.
//   next      | slice | slice |
//   chunk     :       :       :        Then dlogits = factor * e with factor = scale / total, for all but the targets.
//
// The reference is the maximum of a token's first slice. If a total overflows TOO_LARGE, everything so far is rescaled
// to a larger reference. The target's e is left out until the end: p_target - 1 = -(sum of all other probabilities),
// which is exact in f32, where 1 - p_target would cancel.
//
// A panel takes one chunk after the other, no matter by which threads, and chunks depend on C alone, so no result depends on
// the number of threads.
//
// Milakov & Gimelshein 2018, arXiv:1805.02867 (sums before the maximum is known); Dao et al. 2022, arXiv:2205.14135
// (followed by a GEMM); Wijmans et al. 2024, arXiv:2411.09009 (for an output layer).
#include "formulas.h"
#include "cpu/gemm/accumulated_product.h"
#include "cpu/output_layer_slice.h"
#include "cpu/output_layer_tasks.h"
#include "cpu/runtime/call.h"
#include "cpu/runtime/scratch.h"
#include "cpu/select/convert.h"
#include "cpu/select/dual_operand.h"
#include "cpu/select/stream.h"
#include "cpu/simd/sums.h"
#include <algorithm>
#include <cmath>
#include <vector>

// Elements of the weight in a chunk, which stays in L2, and the most rows of one. Elements of dx in a block: each block
// packs the whole weight again, so large blocks pay although their sums leave L2.
constexpr int64_t CHUNK_ELEMENTS = 1 << 17, MAX_CHUNK_ROWS = 480, BLOCK_ELEMENTS = 1 << 19;

struct OutputLayer {
    int64_t N, C, V;
    float scale;
    const act* x;
    const act* weight;
    const act* bias;
    const int32_t* targets;
    float* losses;
    float* factors;  // scale / total of each token: dlogits = factor * exponential
    act* dx;
    act* scaled;  // x * factor, the B operand of dweight
    DualOperand exponentials;

    int64_t chunk_rows() const {
        return std::clamp(CHUNK_ELEMENTS / (C * SPLITS) / SLICE, int64_t{1}, MAX_CHUNK_ROWS / SLICE) * SLICE;
    }
    int64_t block_tokens() const { return std::max<int64_t>(1, BLOCK_ELEMENTS / C / NR) * NR; }

    void train_block(Team team, SharedOutputLayer& shared, int64_t first, int64_t last, int64_t most_panels) const;
    void multiply_panel(TokenPanel& panel, const PackedWord* inputs, PackedA by_rows, PackedA by_channels,
                        int64_t chunk, int64_t rows, float* logits, PackedWord* b_panel) const;
    SliceExponentials begin_slice(TokenPanel& panel, float* logits, int64_t row, int64_t rows, int64_t chunk,
                                  PackedWord* b_panel) const;
    void finish_slice(SliceExponentials& slice, int64_t chunk) const;
    void raise_references(SliceExponentials& slice, int64_t chunk) const;
    void finish_panel(const TokenPanel& panel) const;
};

// All of the vocabulary for the tokens of a team, of which a thread owns first to last. All must call it equally often.
// most_panels: of any thread.
void OutputLayer::train_block(Team team, SharedOutputLayer& shared, int64_t first, int64_t last,
                              int64_t most_panels) const {
    const int64_t count = quotient_up(last - first, NR), most = chunk_rows(), sums_size = padded(C, MR) * NR;
    ScratchArena arena;
    PackedWord* const b_panel = arena.take(b_panel_size(most));
    if (team.rank == 0) {
        shared.rounds.emplace(team, team.size, 2 * packing_tasks(team), most_panels);
        for (int64_t i = 0; i < std::min(team.size, MOST_BUFFERS); ++i)
            shared.chunks[i] = {arena.take(packed_a_size(most, C)), arena.take(packed_a_size(C, most))};
    }
    float* const sums = arena.take(count * sums_size);
    float* const logits = arena.take(2 * SLICE * NR);  // of two slices: one being computed, one being exponentiated
    OwnedTokens& own = shared.tokens[team.rank];
    own.inputs = arena.take(count * b_panel_size(C));
    own.panels.resize(count);
    for (int64_t p = 0; p < count; ++p) {
        const int64_t token = first + p * NR, width = std::min<int64_t>(NR, last - token);
        own.panels[p] = {{}, {}, {}, token, width, sums + p * sums_size};
    }
    if (count) pack_b(own.inputs, {x + first * C, 1, C}, C, last - first);
    team.wait();
    for (int64_t round = 0; round * most < V; ++round) {
        const int64_t chunk = round * most, rows = std::min(most, V - chunk), parts = team.size * packing_tasks(team);
        const PackedChunk memory = shared.chunks[shared.rounds->buffer_of(round)];
        const Matrix weight_rows = {weight + chunk * C, C, 1}, weight_channels = {weight + chunk * C, 1, C};
        const PackedA by_rows = whole_a(memory.by_rows, weight_rows, rows, C, N);
        const PackedA by_channels = whole_a(memory.by_channels, weight_channels, C, rows, N);
        const auto pack = [&](int64_t owner, int64_t task) {
            const int64_t part = owner * packing_tasks(team) + task / 2;
            if (task % 2 == 0)
                pack_part_of_a(part, parts, memory.by_rows, weight_rows, rows, C, N);
            else
                pack_part_of_a(part, parts, memory.by_channels, weight_channels, C, rows, N);
        };
        const auto work = [&](int64_t owner, int64_t p) {
            OwnedTokens& tokens = shared.tokens[owner];
            if (p >= static_cast<int64_t>(tokens.panels.size())) return;
            multiply_panel(tokens.panels[p], tokens.inputs + p * b_panel_size(C), by_rows, by_channels, chunk, rows,
                           logits, b_panel);
            finish_streams();  // before another thread takes the panel, which may rescale what this one has stored
        };
        shared.rounds->run(team, round, pack, work);
    }
    team.wait();  // until the last chunk is done
    for (const TokenPanel& panel : own.panels) finish_panel(panel);
    finish_streams();
}

// One chunk of the vocabulary, of `rows` rows, for one panel.
void OutputLayer::multiply_panel(TokenPanel& panel, const PackedWord* inputs, PackedA by_rows, PackedA by_channels,
                                 int64_t chunk, int64_t rows, float* logits, PackedWord* b_panel) const {
    SliceExponentials before{};
    for (int64_t top = 0; top < rows; top += SLICE, by_rows.data += SLICE / MR * by_rows.panel_stride) {
        const int64_t height = std::min(SLICE, rows - top);
        float* const target = logits + top / SLICE % 2 * SLICE * NR;
        multiply(by_rows, inputs, b_panel_size(C), target, NR, height, NR, C, false, before);
        finish_slice(before, chunk);
        before = begin_slice(panel, target, chunk + top, height, chunk, b_panel);
    }
    finish_slice(before, chunk);
    multiply(by_channels, b_panel, b_panel_size(rows), panel.sums, NR, C, NR, rows, chunk > 0);
}

// Adds the bias to the logits (rows, NR) of the vocabulary rows `row` on, takes the targets out, and returns the work
// that is left. Rows up to a multiple of K_STEP are filled with LOWEST.
SliceExponentials OutputLayer::begin_slice(TokenPanel& panel, float* logits, int64_t row, int64_t rows, int64_t chunk,
                                           PackedWord* b_panel) const {
    const int64_t whole = padded(rows, K_STEP);
    for (int64_t r = 0; bias && r < rows; ++r)
        for (int64_t j = 0; j < NR; ++j) logits[r * NR + j] += static_cast<float>(bias[row + r]);
    if (row == 0) maxima_of_columns(panel.reference, logits, rows);
    std::fill(logits + rows * NR, logits + whole * NR, LOWEST);
    for (int64_t j = 0; j < panel.count; ++j) {
        const int64_t r = targets[panel.first + j] - row;
        if (r < 0 || r >= rows) continue;
        panel.target_logit[j] = logits[r * NR + j];
        logits[r * NR + j] = LOWEST;
    }
    const int64_t first_word = (row - chunk) / WORD_TERMS, words = whole / WORD_TERMS;
    SliceExponentials slice{&exponentials, &panel, logits, b_panel, row, first_word, words};
    std::copy_n(panel.total, NR, slice.totals_before);
    return slice;
}

// Does the rest of a slice, and does it again with larger references if a total became too large.
void OutputLayer::finish_slice(SliceExponentials& slice, int64_t chunk) const {
    slice.finish();
    if (slice.panel && any_too_large(slice.panel->total)) raise_references(slice, chunk);
}

// Takes the maxima of a slice as references where they are larger, and rescales everything so far: the totals, the
// stored exponentials, this chunk's B micro-panel and the sums of dx.
void OutputLayer::raise_references(SliceExponentials& slice, int64_t chunk) const {
    TokenPanel& panel = *slice.panel;
    alignas(64) float maxima[NR], rescaling[NR];
    maxima_of_columns(maxima, slice.logits, slice.words * WORD_TERMS);
    const auto not_greater = [](float a, float b) { return !(a > b); };  // true for NaN, which no reference helps
    if (std::equal(maxima, maxima + NR, panel.reference, not_greater)) return;
    for (int64_t j = 0; j < NR; ++j) {
        const float reference = std::max(panel.reference[j], maxima[j]);
        rescaling[j] = exp_f32(panel.reference[j] - reference);
        panel.reference[j] = reference;
        panel.total[j] = slice.totals_before[j] * rescaling[j];
    }
    const auto rescale = [&](int64_t row, Vector(&columns)[2]) {
        exponentials.get(panel.index(), row, columns[0], columns[1]);
        for (int half = 0; half < 2; ++half) columns[half] *= vector_at(rescaling + half * LANES);
        exponentials.put(panel.index(), row, columns[0], columns[1]);
    };
    Vector terms[2][2];
    for (int64_t row = 0; row < chunk; ++row) rescale(row, terms[0]);
    for (int64_t word = 0; word < slice.first_word; ++word) {
        for (int term = 0; term < WORD_TERMS; ++term)
            rescale(chunk + first_term(word) + term * TERM_DISTANCE, terms[term]);
        for (int half = 0; half < 2; ++half)
            put_b_words(slice.b_panel, word, half * LANES, terms[0][half], terms[WORD_TERMS - 1][half]);
    }
    for (int64_t c = 0; chunk && c < C; ++c)
        for (int64_t j = 0; j < NR; ++j) panel.sums[c * NR + j] *= rescaling[j];
    slice.word = 0;
    slice.finish();
}

// Computes what needs the whole vocabulary: losses, dx, the targets' exponentials, and the other operand of dweight.
void OutputLayer::finish_panel(const TokenPanel& panel) const {
    std::vector<float> row(C), target_row(C);
    for (int64_t j = 0; j < panel.count; ++j) {
        const int64_t n = panel.first + j, target = targets[n];
        // all relative to the larger of the reference and the target's logit
        const float others = panel.total[j], above = panel.target_logit[j] - panel.reference[j];
        const float highest = std::max(above, 0.0f), unit = exp_f32(-highest);
        const float total = others * unit + exp_f32(above - highest), factor = scale * unit / total;
        losses[n] = std::log(total) + (highest - above);
        factors[n] = factor;
        alignas(64) float columns[NR];
        exponentials.get(panel.index(), target, vector_at(columns), vector_at(columns + LANES));
        columns[j] = -others;  // times factor, this is scale * (p_target - 1)
        exponentials.put(panel.index(), target, vector_at(columns), vector_at(columns + LANES));
        load(target_row.data(), weight + target * C, C);
        for (int64_t c = 0; c < C; ++c) row[c] = factor * (panel.sums[c * NR + j] - others * target_row[c]);
        store(dx + n * C, row.data(), C);
        load(row.data(), x + n * C, C);
        for (int64_t c = 0; c < C; ++c) row[c] *= factor;
        store(scaled + n * C, row.data(), C);
    }
}

extern "C" void output_layer_training(float* losses, act* dx, float* dweight, float* dbias, act* exponentials,
                                      act* scaled, const act* x, const act* weight, const act* bias,
                                      const int32_t* targets, int64_t N, int64_t C, int64_t V, int64_t /*W*/,
                                      float scale) {
    std::vector<float> factors(padded(N, NR));
    const DualOperand operand(exponentials, V, N);
    const OutputLayer layer{N, C, V, scale, x, weight, bias, targets, losses, factors.data(), dx, scaled, operand};
    SharedOutputLayer shared(thread_count());
    parallel_team(std::clamp<int64_t>(N / NR, 1, thread_count()), [&](Team team) {
        begin_tiles();
        const Team::Range tokens = team.part(N, NR);
        const int64_t most = team.largest_part(N, NR), blocks = quotient_up(most, layer.block_tokens());
        const int64_t block = padded(quotient_up(most, blocks), NR);
        for (int64_t i = 0; i < blocks; ++i) {
            const int64_t first = std::min(tokens.end, tokens.begin + i * block);
            layer.train_block(team, shared, first, std::min(tokens.end, first + block), block / NR);
        }
    });
    gemm_accumulate(dweight, V, C, N, operand, {scaled, C, 1}, NothingElse());
    if (dbias)
        parallel_ranges(V, worth_a_thread(N), [&](int64_t begin, int64_t end) {
            for (int64_t v = begin; v < end; ++v) {
                Vector sums[2] = {};
                for (int64_t n = 0; n < N; n += NR) {
                    Vector left, right;
                    operand.get(n / NR, v, left, right);
                    sums[0] += left * vector_at(factors.data() + n);
                    sums[1] += right * vector_at(factors.data() + n + LANES);
                }
                dbias[v] += sum_of_lanes(sums[0] + sums[1]);
            }
        });
}

CALLABLE(output_layer_training)

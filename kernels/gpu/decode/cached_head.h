// Attention of one new token to the cached ones of a head, by all threads of a block.
#pragma once
#include "gpu/simt/cached_attention.h"

// keys, values (T, D) of a head. A team has WIDTH channels of a key in each lane.
template <int BLOCK_THREADS>
struct CachedHead {
    static constexpr int LANES = HEAD_CHANNELS / WIDTH, TEAMS = BLOCK_THREADS / LANES;
    static constexpr int TOGETHER = 4;  // keys that a team visits in a turn
    const act *keys, *values;

    // The cached rows that a team visits in a turn.
    struct Rows {
        Vector keys[TOGETHER], values[TOGETHER];
    };
    using Softmaxes = WaveSoftmaxes<BLOCK_THREADS, HEAD_CHANNELS>;
    using Own = act[3][HEAD_CHANNELS];  // the new token's query, key and value

    static DEVICE_MEMBER int row(int first, int turn) { return first + turn * TEAMS + threadIdx.x / LANES; }
    static DEVICE_MEMBER int channel() { return threadIdx.x % LANES * WIDTH; }

    DEVICE_MEMBER void load_rows(Rows& rows, int first, int count) const {
#pragma unroll
        for (int turn = 0; turn < TOGETHER; ++turn) {
            const int at = row(first, turn);
            if (at >= count) continue;
            rows.keys[turn] = *reinterpret_cast<const Vector*>(keys + at * HEAD_CHANNELS + channel());
            rows.values[turn] = *reinterpret_cast<const Vector*>(values + at * HEAD_CHANNELS + channel());
        }
    }

    // Leaves in `softmaxes` the attention to the cached rows before `position` and to the new token's, which need not be
    // in the cache. rows: the first ones, because they can be loaded before the query is known.
    DEVICE_MEMBER void attend(Softmaxes& softmaxes, Rows& rows, const Own& own, int position) const {
        TeamSoftmax<LANES> softmax;
        float query[WIDTH];
        load(query, own[0] + channel());
        for (int begin = 0; begin <= position; begin += TOGETHER * TEAMS) {  // all lanes, as they exchange sums
            if (begin > 0) load_rows(rows, begin, position);
            visit(softmax, rows, own, query, begin, position);
        }
        softmaxes.store(softmax);
    }

    static DEVICE_MEMBER void visit(TeamSoftmax<LANES>& softmax, const Rows& rows, const Own& own,
                                    const float (&query)[WIDTH], int begin, int position) {
        const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_CHANNELS));
        float scores[TOGETHER], raised = softmax.maximum, values[WIDTH];
        const auto load_row = [&](Vector vector, int part, int turn) {
            if (row(begin, turn) == position) vector = *reinterpret_cast<const Vector*>(own[part] + channel());
            widen(values, vector);
        };
#pragma unroll
        for (int turn = 0; turn < TOGETHER; ++turn) {
            scores[turn] = MASKED;
            if (begin + turn * TEAMS > position) continue;  // so does the whole block
            load_row(rows.keys[turn], 1, turn);
            scores[turn] = softmax.product(query, values) * scale;
            if (row(begin, turn) > position) scores[turn] = MASKED;
            raised = fmaxf(raised, scores[turn]);
        }
        softmax.raise_to(raised);
#pragma unroll
        for (int turn = 0; turn < TOGETHER; ++turn) {
            load_row(rows.values[turn], 2, turn);
            if (scores[turn] > MASKED) softmax.add(scores[turn], values);
        }
    }
};

// Attention of one new token of each sequence to the cached ones.
#pragma once
#include "gpu/decode/shared.h"

// Keys and values (N, H, T, D) of one block of the model. A team has WIDTH channels of a key in each lane.
struct Heads {
    static constexpr int EACH = CHANNELS / HEAD_CHANNELS, ALL = SEQUENCES * EACH;  // heads of a sequence; of all
    static constexpr int LANES = HEAD_CHANNELS / WIDTH, TEAMS = DECODE_BLOCKS_THREADS / LANES;
    static constexpr int TOGETHER = 4;  // keys that a team visits in a turn
    int64_t T;
    act *keys, *values;

    // The cached rows that a team visits in a turn.
    struct Rows {
        Vector keys[TOGETHER], values[TOGETHER];
    };

    static DEVICE_MEMBER int row(int first, int turn) { return first + turn * TEAMS + threadIdx.x / LANES; }
    static DEVICE_MEMBER int channel() { return threadIdx.x % LANES * WIDTH; }

    // Brings the cached rows of this block's heads into L2.
    DEVICE_MEMBER void prefetch(const Shared& shared) const {
        constexpr int LINE = 64;  // elements
        for (int head = blockIdx.x; head < ALL; head += BLOCKS) {
            const int elements = shared.positions[head / EACH] * HEAD_CHANNELS;
            for (int at = threadIdx.x * LINE; at < elements; at += DECODE_BLOCKS_THREADS * LINE)
                for (const act* cached : {keys, values})
                    asm volatile("prefetch.global.L2 [%0];" ::"l"(cached + head * T * HEAD_CHANNELS + at));
        }
    }

    DEVICE_MEMBER void load_rows(Rows& rows, int head, int first, int count) const {
        const int64_t offset = head * T * HEAD_CHANNELS + channel();
#pragma unroll
        for (int turn = 0; turn < TOGETHER; ++turn) {
            const int at = row(first, turn);
            if (at >= count) continue;
            rows.keys[turn] = *reinterpret_cast<const Vector*>(keys + offset + at * HEAD_CHANNELS);
            rows.values[turn] = *reinterpret_cast<const Vector*>(values + offset + at * HEAD_CHANNELS);
        }
    }

    // Attention of the heads that this block has: from slots (N, 3, C) of qkv to slots (N, C).
    DEVICE_MEMBER void attend(Shared& shared, Slot* attended, const Slot* qkv, uint32_t tag) const {
        for (int head = blockIdx.x; head < ALL; head += BLOCKS) {
            const int n = head / EACH, first = head % EACH * HEAD_CHANNELS, position = shared.positions[n];
            Rows rows;
            load_rows(rows, head, 0, position);  // earlier tokens', which need not wait for this one's query
            receive_head(shared, head, qkv + (n * 3 * CHANNELS + first) / 2, tag);
            TeamSoftmax<LANES> softmax;
            float query[WIDTH];
            load(query, shared.qkv[0] + channel());
            for (int begin = 0; begin <= position; begin += TOGETHER * TEAMS) {  // all lanes, as they exchange sums
                if (begin > 0) load_rows(rows, head, begin, position);
                visit(softmax, shared, rows, query, begin, position);
            }
            shared.softmaxes.store(softmax);
            constexpr int PAIRS = HEAD_CHANNELS / 2;
            if (threadIdx.x < PAIRS) {
                const int d = threadIdx.x * 2;
                const uint32_t pair = bf16_pair(shared.softmaxes.channel(d), shared.softmaxes.channel(d + 1));
                hand_out(attended + (n * CHANNELS + first + d) / 2, pair, tag);
            }
            __syncthreads();
        }
    }

    // Takes this token's query, key and value of a head, and adds key and value to the cache.
    DEVICE_MEMBER void receive_head(Shared& shared, int head, const Slot* qkv, uint32_t tag) const {
        constexpr int PAIRS = HEAD_CHANNELS / 2;
        const int part = threadIdx.x / PAIRS, i = threadIdx.x % PAIRS;
        if (part < 3) {
            const uint32_t pair = receive_one(qkv + part * CHANNELS / 2 + i, tag);
            reinterpret_cast<uint32_t*>(shared.qkv[part])[i] = pair;
            act* cached = part == 1 ? keys : values;
            const int64_t own = (head * T + shared.positions[head / EACH]) * HEAD_CHANNELS;
            if (part > 0) reinterpret_cast<uint32_t*>(cached + own)[i] = pair;
        }
        __syncthreads();
    }

    static DEVICE_MEMBER void visit(TeamSoftmax<LANES>& softmax, const Shared& shared, const Rows& rows,
                                    const float (&query)[WIDTH], int begin, int position) {
        const float scale = 1.0f / sqrtf(static_cast<float>(HEAD_CHANNELS));
        float scores[TOGETHER], raised = softmax.maximum, values[WIDTH];
        const auto load_row = [&](Vector vector, int part, int turn) {
            if (row(begin, turn) == position) vector = *reinterpret_cast<const Vector*>(shared.qkv[part] + channel());
            widen(values, vector);
        };
#pragma unroll
        for (int turn = 0; turn < TOGETHER; ++turn) {
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

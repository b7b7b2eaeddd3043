// Attention of one new token of each sequence to the cached ones.
#pragma once
#include "gpu/decode/cached_head.h"
#include "gpu/decode/shared.h"

// Keys and values (N, H, T, D) of one block of the model.
struct Heads {
    static constexpr int EACH = CHANNELS / HEAD_CHANNELS, ALL = SEQUENCES * EACH;  // heads of a sequence; of all
    int64_t T;
    act *keys, *values;

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

    // Attention of the heads that this block has: from slots (N, 3, C) of qkv to slots (N, C).
    DEVICE_MEMBER void attend(Shared& shared, Slot* attended, const Slot* qkv, uint32_t tag) const {
        for (int head = blockIdx.x; head < ALL; head += BLOCKS) {
            const int n = head / EACH, first = head % EACH * HEAD_CHANNELS, position = shared.positions[n];
            const int64_t cached = head * T * HEAD_CHANNELS;
            const CachedHead<DECODE_BLOCKS_THREADS> of = {keys + cached, values + cached};
            CachedHead<DECODE_BLOCKS_THREADS>::Rows rows;
            of.load_rows(rows, 0, position);  // earlier tokens', which need not wait for this one's query
            receive_head(shared, head, qkv + (n * 3 * CHANNELS + first) / 2, tag);
            of.attend(shared.softmaxes, rows, shared.qkv, position);
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
};

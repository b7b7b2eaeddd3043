// How blocks of one launch hand each other pairs of bf16: a slot of 64 bits has a pair and the tag of its round. Both are
// written and read at once, so a reader that sees the tag has the pair, and no barrier or fence is needed. All blocks
// must be resident. The protocol is that of NCCL for few bytes ("LL").
#pragma once
#include "gpu/select/platform.h"

using Slot = uint64_t;

DEVICE void hand_out(Slot* slot, uint32_t pair, uint32_t tag) {
    const Slot value = pair | static_cast<Slot>(tag) << 32;
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(slot), "l"(value) : "memory");
}

DEVICE Slot look(const Slot* slot) {
    Slot got;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(got) : "l"(slot) : "memory");
    return got;
}

// The pair of a slot, once it has the tag.
DEVICE uint32_t receive_one(const Slot* slot, uint32_t tag) {
    Slot got = look(slot);
    while (got >> 32 != tag) got = look(slot);
    return static_cast<uint32_t>(got);
}

// use(i, pair) for each of COUNT slots, which the threads of the block share, once all of a thread's have the tag.
template <int BLOCK_THREADS, int COUNT, class Use>
DEVICE void receive(const Slot* slots, uint32_t tag, const Use& use) {
    constexpr int TOGETHER = 8;  // loads that a thread issues at once, because each takes long
    constexpr int EACH = (COUNT + BLOCK_THREADS - 1) / BLOCK_THREADS, BATCH = EACH < TOGETHER ? EACH : TOGETHER;
    const auto is_inside = [](int i) { return COUNT % (BATCH * BLOCK_THREADS) == 0 || i < COUNT; };
#pragma unroll 1
    for (int first = threadIdx.x; first < COUNT; first += BATCH * BLOCK_THREADS) {
        Slot got[BATCH];
        bool is_complete = false;
        while (!is_complete) {
            is_complete = true;
#pragma unroll
            for (int u = 0; u < BATCH; ++u)
                if (is_inside(first + u * BLOCK_THREADS)) got[u] = look(slots + first + u * BLOCK_THREADS);
#pragma unroll
            for (int u = 0; u < BATCH; ++u)
                if (is_inside(first + u * BLOCK_THREADS)) is_complete = is_complete && got[u] >> 32 == tag;
        }
#pragma unroll
        for (int u = 0; u < BATCH; ++u)
            if (is_inside(first + u * BLOCK_THREADS)) use(first + u * BLOCK_THREADS, static_cast<uint32_t>(got[u]));
    }
}

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

// use(i, pair) for every slot i < count, which the threads of the block share. Waits for each to have the tag.
template <class Use>
DEVICE void receive(const Slot* slots, int count, uint32_t tag, const Use& use) {
    constexpr int TOGETHER = 8;  // loads that a thread issues at once, because each takes long
    for (int first = threadIdx.x; first < count; first += TOGETHER * blockDim.x) {
        Slot got[TOGETHER];
        bool is_complete = false;
        while (!is_complete) {
            is_complete = true;
#pragma unroll
            for (int u = 0; u < TOGETHER; ++u) {
                const int i = first + u * blockDim.x;
                if (i >= count) break;
                asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(got[u]) : "l"(slots + i) : "memory");
            }
#pragma unroll
            for (int u = 0; u < TOGETHER; ++u)
                if (first + u * blockDim.x < count) is_complete = is_complete && got[u] >> 32 == tag;
        }
#pragma unroll
        for (int u = 0; u < TOGETHER; ++u)
            if (first + u * blockDim.x < count) use(first + u * blockDim.x, static_cast<uint32_t>(got[u]));
    }
}

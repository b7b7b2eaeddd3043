// Barriers in shared memory and clusters of blocks, from sm_90 on: PTX ISA, "mbarrier" and "barrier.cluster".
//
// A barrier's phase ends when `arrivals` threads have arrived and the bytes that they announced have been copied. Its
// phases have parity 0, 1, 0, ...; a wait for a parity returns once the phase of that parity is over, so that a wait
// for parity 1 on a new barrier returns at once.
#pragma once
#include "gpu/select/platform.h"

// A kernel whose blocks run one per multiprocessor, in clusters; registers of a thread are then adjustable.
#define PERSISTENT_KERNEL(threads, cluster) \
    extern "C" __global__ void __launch_bounds__(threads, 1) __cluster_dims__(cluster, 1, 1)

struct alignas(8) Barrier {
    uint64_t state;

    DEVICE_MEMBER uint32_t address() const { return shared_address(this); }

    DEVICE_MEMBER void init(int arrivals) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address()), "r"(arrivals) : "memory");
    }

    DEVICE_MEMBER void arrive() {
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address()) : "memory");
    }

    // Arrives and announces bytes that copies will bring.
    DEVICE_MEMBER void arrive_expecting(int bytes) {
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address()), "r"(bytes) : "memory");
    }

    // Arrives at this barrier of a block of the cluster. Orders no writes: a fence for that would cost 500 cycles.
    DEVICE_MEMBER void arrive_in(uint32_t block_of_cluster) {
        asm volatile(
            "{ .reg .b32 remote; mapa.shared::cluster.u32 remote, %0, %1; "
            "mbarrier.arrive.shared::cluster.b64 _, [remote]; }" ::"r"(address()),
            "r"(block_of_cluster)
            : "memory");
    }

    DEVICE_MEMBER void wait(uint32_t parity) {
        asm volatile(
            "{ .reg .pred done; again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1; @!done bra again; }" ::
                "r"(address()),
            "r"(parity)
            : "memory");
    }
};

// Makes barriers that a thread has initialised visible to copies and to the other blocks of the cluster.
DEVICE void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

DEVICE uint32_t block_of_cluster() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// What this thread has stored in shared memory is visible to wgmma and to the copy engine.
DEVICE void fence_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A barrier of `threads` threads of a block; number 0 is __syncthreads.
DEVICE void barrier_of_threads(int number, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// The address at which any block of the cluster reads a variable in the shared memory of one of its blocks.
template <class T>
DEVICE const T* in_block(const T* shared, uint32_t block_of_cluster) {
    const T* address;
    asm("mapa.u64 %0, %1, %2;" : "=l"(address) : "l"(shared), "r"(block_of_cluster));
    return address;
}

// The same as a number, for instructions that take one.
DEVICE uint32_t address_in_block(const void* shared, uint32_t block_of_cluster) {
    uint32_t address;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(shared)), "r"(block_of_cluster));
    return address;
}

DEVICE void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release; barrier.cluster.wait.acquire;" ::: "memory");
}

// The registers of each thread of a warpgroup from here on; all of its warps call it.
template <int COUNT>
DEVICE void give_up_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT>
DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// The place in a ring of STAGES buffers, each with a barrier, and the parity of its round.
template <int STAGES>
struct RingPlace {
    int stage = 0;
    uint32_t parity = 0;

    DEVICE_MEMBER void advance() {
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// Boxes of a matrix that the copy engine moves from global into shared memory: PTX ISA, "Tensors" and
// "cp.async.bulk.tensor". A box is 64 columns by up to 256 rows of bf16. Its rows of 128 bytes are stored one after
// another, with the permutation that wgmma calls "128-byte swizzle"; elements outside the matrix become zero.
#pragma once
#include "gpu/hopper/barrier.h"

#define TENSOR_MAP const __grid_constant__ TensorMap  // a kernel's parameter

// A matrix and the size of its boxes, as the driver encodes them: cuTensorMapEncodeTiled.
struct alignas(64) TensorMap {
    uint64_t encoded[16];

    // Starts to copy the box at (row, column) to the same address in shared memory of all blocks of the cluster whose
    // bits are set in `blocks`. The barrier at `done`'s address in each of them counts its bytes.
    DEVICE_MEMBER void load(bf16* shared, Barrier& done, int row, int column, uint32_t blocks) const {
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
            "[%0], [%1, {%3, %4}], [%2], %5;" ::"r"(shared_address(shared)),
            "l"(this), "r"(done.address()), "r"(column), "r"(row), "h"(static_cast<unsigned short>(blocks))
            : "memory");
    }

    // The same for this block alone.
    DEVICE_MEMBER void load(bf16* shared, Barrier& done, int row, int column) const {
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
            "[%2];" ::"r"(shared_address(shared)),
            "l"(this), "r"(done.address()), "r"(column), "r"(row)
            : "memory");
    }

    // Starts to store a box from shared memory at (row, column), without what is outside the matrix.
    DEVICE_MEMBER void store(const bf16* shared, int row, int column) const {
        asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%2, %3}], [%1];" ::"l"(this),
                     "r"(shared_address(shared)), "r"(column), "r"(row)
                     : "memory");
    }
};

// Starts to copy `bytes` bytes, a multiple of 16 at an address that is one, which the barrier counts.
DEVICE void copy_bytes(void* shared, const void* source, int bytes, Barrier& done) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(shared)),
                 "l"(source), "r"(bytes), "r"(done.address())
                 : "memory");
}

// stores_commit closes a batch of this thread's stores; stores_wait<LEFT> waits until at most LEFT batches have still to
// be read from shared memory.
DEVICE void stores_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
template <int LEFT>
DEVICE void stores_wait() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(LEFT) : "memory");
}

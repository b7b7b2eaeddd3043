// The GEMM by Hopper's wgmma and copy engine, for large sizes: persistent blocks, each with a warpgroup that loads and
// two that multiply.
//
// A block computes tiles of 128 x 256; each of two warpgroups computes 64 rows. One thread has the copy engine fill a
// ring of TMA_STAGES stages of both operands; a stage is full when its bytes have arrived, and empty when both warpgroups have
// multiplied it. A cluster of two blocks computes neighbouring tiles of one column of tiles: each block loads half of
// their common B for both, which saves a third of the reads from L2. A warpgroup's epilogue overlaps with loads of the
// next tile, and its stores with the next tile's products.
// Techniques: CUTLASS's warp-specialised persistent kernels; the PTX ISA's asynchronous copies.
#pragma once
#include "gpu/hopper/wgmma.h"
#include "gpu/gemm/persistent_schedule.h"
#include "gpu/gemm/tma_tile.h"

// A_K_CONTIGUOUS: memory has rows of k for each i, otherwise rows of i for each k; boxes of the tensor map have 128 rows
// or 64. The same for B.
// STACKED: A and B are matrices one below the other, all with as many rows in memory, a multiple of a cluster's tile. The
// rows of A that belong to one matrix are multiplied by that matrix of B.
template <bool A_K_CONTIGUOUS, bool B_K_CONTIGUOUS, bool STACKED = false>
struct Gemm {
    struct Ring {
        Barrier full[TMA_STAGES], empty[TMA_STAGES];
    };
    using Place = RingPlace<TMA_STAGES>;

    // One GEMM of a launch: C (M, N) = A B^T, by the maps of A and B.
    template <class Operation, class RowStore>
    struct Product {
        const TensorMap *a, *b;
        int64_t M, N;
        Operation operation;
        RowStore row_store;
    };

    // C (M, N) = A (M, K) B (N, K)^T. operation, row_store: Fused and NoRowSums or AddRowSums of epilogue.h. targets: maps
    // of the operation's outputs, none if they are in f32.
    template <class Operation, class RowStore, class... Targets>
    static DEVICE_MEMBER void run(const TensorMap& a, const TensorMap& b, int64_t M, int64_t N, int64_t K,
                                  const Operation& operation, const RowStore& row_store, const SplitK& split_k,
                                  const Targets&... targets) {
        const Product<Operation, RowStore> product = {&a, &b, M, N, operation, row_store};
        run(
            PersistentSchedule<>({{M, N}}, K, split_k.slice_count), [&](int) { return product; }, K, split_k,
            targets...);
    }

    // The GEMMs of a schedule. products: returns each, by its number.
    template <class Schedule, class Products, class... Targets>
    static DEVICE_MEMBER void run(Schedule schedule, const Products& products, int64_t K, const SplitK& split_k,
                                  const Targets&... targets) {
        extern __shared__ __align__(1024) unsigned char stage_memory[];
        __shared__ Ring ring;
        bf16* memory = reinterpret_cast<bf16*>(stage_memory);
        if (split_k.phase == ADD_SLICES) return add_slices(schedule, products, split_k);

        if (threadIdx.x == 0) {
            for (int stage = 0; stage < TMA_STAGES; ++stage) {
                ring.full[stage].init(1);
                ring.empty[stage].init(MULTIPLIERS * TMA_CLUSTER);
            }
            fence_barrier_init();
        }
        cluster_barrier();
        const int warpgroup = threadIdx.x / WARPGROUP;
        if (warpgroup == MULTIPLIERS) {
            give_up_registers<40>();
            if (threadIdx.x % WARPGROUP == 0) load_all(memory, ring, schedule, products, K);
        } else {
            take_registers<232>();
            multiply_all(memory, ring, schedule, products, split_k, &targets...);
        }
        cluster_barrier();  // a block must not end while the other still arrives at its barriers
    }

    template <class Schedule, class Products>
    static DEVICE_MEMBER void load_all(bf16* memory, Ring& ring, Schedule& schedule, const Products& products,
                                       int64_t K) {
        const int block = block_of_cluster(), both = (1 << TMA_CLUSTER) - 1;
        Place place;
        for (Work work; schedule.next(work);) {
            const auto product = products(work.gemm);
            const TensorMap &a = *product.a, &b = *product.b;
            const int row = (work.row * TMA_CLUSTER + block) * TMA_ROWS, column = work.column * TMA_COLUMNS;
            const int matrix_rows = static_cast<int>(B_K_CONTIGUOUS ? product.N : K);  // of each matrix of B, in memory
            const int first = STACKED ? row / matrix_rows * matrix_rows : 0;           // row of its matrix
            for (int stage = 0; stage < work.count; ++stage, place.advance()) {
                ring.empty[place.stage].wait(place.parity ^ 1);
                Barrier& full = ring.full[place.stage];
                full.arrive_expecting(STAGE_BYTES);
                const int k = (work.first + stage) * STAGE_K;
                bf16 *tile_a = memory + place.stage * (STAGE_BYTES / 2), *tile_b = tile_a + TILE_A;
                if constexpr (A_K_CONTIGUOUS)
                    a.load(tile_a, full, row, k);
                else
                    for (int i = 0; i < TMA_ROWS; i += 64) a.load(tile_a + i * STAGE_K, full, k, row + i);
                constexpr int HALF = TMA_COLUMNS / TMA_CLUSTER;
                if constexpr (B_K_CONTIGUOUS)
                    b.load(tile_b + block * HALF * STAGE_K, full, first + column + block * HALF, k, both);
                else
                    for (int i = block * HALF; i < (block + 1) * HALF; i += 64)
                        b.load(tile_b + i * STAGE_K, full, first + k, column + i, both);
            }
        }
    }

    template <class Schedule, class Products, class... Targets>
    static DEVICE_MEMBER void multiply_all(bf16* memory, Ring& ring, Schedule& schedule, const Products& products,
                                           const SplitK& split_k, const Targets*... targets) {
        const int block = block_of_cluster(), warpgroup = threadIdx.x / WARPGROUP;
        bf16* staging = memory + STAGING + warpgroup * STAGING_BOXES * BOX;
        Place place;
        for (Work work; schedule.next(work);) {
            const auto product = products(work.gemm);
            const auto& operation = product.operation;
            const auto& row_store = product.row_store;
            const int64_t M = product.M, N = product.N;
            const int row = (work.row * TMA_CLUSTER + block) * TMA_ROWS + warpgroup * WARPGROUP_ROWS;
            const TmaEpilogue out = {row, work.column * TMA_COLUMNS, M, N};
            const Slot slot(split_k.workspace, work.item, block);
            float sums[TMA_COLUMNS / 2];
            RowSums<decltype(product.row_store)> row_sums(row_store, work.column == 0);
            TmaEpilogue::Prefetched<decltype(product.operation.source)> fetched;  // used for targets with a map only
            multiply(sums, row_sums, memory, ring, place, work.count, [&] { fetched.load(out, operation.source); });
            row_sums.write(reinterpret_cast<float*>(staging), [=](int r, float sum) {
                if (split_k.phase == K_SLICES)
                    slot.row_sums()[warpgroup * WARPGROUP_ROWS + r] = sum;
                else if (row + r < M)
                    row_store(row + r, sum);
            });
            if (split_k.phase == K_SLICES) {
#pragma unroll
                for (int group = 0; group < Slot::GROUPS; ++group) {
                    if (row >= M || out.first_column + group * 8 >= N) break;
                    Vector four;
                    for (int i = 0; i < 4; ++i) four.word[i] = float_bits(sums[4 * group + i]);
                    *slot.sums(warpgroup, group, threadIdx.x % WARPGROUP) = four;
                }
            } else if constexpr (sizeof...(Targets) > 0) {
                const TensorMap* const maps[] = {targets...};
                fetched.exchange();
#pragma unroll
                for (int group = 0; group < Slot::GROUPS; group += 8)
                    out.store_boxes(sums + 4 * group, fetched, group, staging, 1 + warpgroup, maps, operation);
            } else {
#pragma unroll
                for (int group = 0; group < Slot::GROUPS; group += 8)
                    out.template store<8>(sums + 4 * group, group, operation);
            }
        }
        stores_wait<0>();
    }

    // sums = the products of `count` stages of the ring. prefetch is called while the tensor cores multiply the first.
    template <class Rows, class Prefetch>
    static DEVICE_MEMBER void multiply(float (&sums)[TMA_COLUMNS / 2], Rows& row_sums, const bf16* memory, Ring& ring,
                                       Place& place, int count, const Prefetch& prefetch) {
        const int warpgroup = threadIdx.x / WARPGROUP;
        int previous = 0;
        for (int stage = 0; stage < count; ++stage) {
            ring.full[place.stage].wait(place.parity);
            const bf16 *tile_a = memory + place.stage * (STAGE_BYTES / 2), *tile_b = tile_a + TILE_A;
            const bf16* own_a = tile_a + warpgroup * WARPGROUP_ROWS * STAGE_K;
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < STAGE_K; k += MMA_TILE) {
                // the next 16 of K are further along a row, or 16 rows below
                const uint64_t left = descriptor(own_a + (A_K_CONTIGUOUS ? k : k * 64), STAGE_K * 128);
                const uint64_t right = descriptor(tile_b + (B_K_CONTIGUOUS ? k : k * 64), STAGE_K * 128);
                wgmma<!A_K_CONTIGUOUS, !B_K_CONTIGUOUS>(sums, left, right, stage + k > 0);
            }
            wgmma_commit();
            if (stage == 0) prefetch();
            row_sums.add(own_a);
            if (stage > 0) {
                wgmma_wait<1>();
                row_sums.join();
                release(ring.empty[previous]);
            }
            previous = place.stage;
            place.advance();
        }
        wgmma_wait<0>();
        row_sums.join();
        release(ring.empty[previous]);
    }

    // Tells both blocks that this warpgroup has multiplied a stage.
    static DEVICE_MEMBER void release(Barrier& empty) {
        if (threadIdx.x % WARPGROUP < TMA_CLUSTER) empty.arrive_in(threadIdx.x % WARPGROUP);
    }

    // The second launch: a thread for every 16 sums that one thread had in the first.
    template <class Schedule, class Products>
    static DEVICE_MEMBER void add_slices(const Schedule& schedule, const Products& products, const SplitK& split_k) {
        constexpr int BLOCKS = TMA_COLUMNS / 32,
                      EACH = MULTIPLIERS * BLOCKS * WARPGROUP;  // threads per tile of a block
        const int index = blockIdx.x * TMA_THREADS + threadIdx.x, tile = index / EACH / TMA_CLUSTER;
        const int tiles = schedule.tiles;
        if (tile >= tiles) return;
        const int block = index / EACH % TMA_CLUSTER, warpgroup = index % EACH / (BLOCKS * WARPGROUP);
        const int first_group = index / WARPGROUP % BLOCKS * 4, thread = index % WARPGROUP;
        Work work;
        schedule.place(tile, work);
        const auto product = products(work.gemm);
        const auto& row_store = product.row_store;
        const int64_t M = product.M, N = product.N;
        const int row = (work.row * TMA_CLUSTER + block) * TMA_ROWS + warpgroup * WARPGROUP_ROWS;
        const TmaEpilogue out = {row, work.column * TMA_COLUMNS, M, N};
        if (row >= M || out.first_column + first_group * 8 >= N) return;
        const bool sums_rows =
            product.row_store.POSSIBLE && work.column == 0 && first_group == 0 && row_store.requested();
        float sums[16] = {}, row_sums[2] = {};
        for (int slice = 0; slice < split_k.slice_count; ++slice) {
            const Slot slot(split_k.workspace, slice * tiles + tile, block);
#pragma unroll
            for (int i = 0; i < 16; i += 4) {
                const Vector four = *slot.sums(warpgroup, first_group + i / 4, thread);
                for (int j = 0; j < 4; ++j) sums[i + j] += bits_float(four.word[j]);
            }
            if (sums_rows)
                for (int h = 0; h < 2; ++h) row_sums[h] += slot.row_sums()[warpgroup * WARPGROUP_ROWS + out.row(h)];
        }
        if (sums_rows && thread % 4 == 0)
            for (int h = 0; h < 2; ++h)
                if (row + out.row(h) < M) row_store(row + out.row(h), row_sums[h]);
        out.template store<4>(sums, first_group, product.operation);
    }
};

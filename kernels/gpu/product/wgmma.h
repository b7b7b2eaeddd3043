// A product by Hopper's wgmma, whose operands are read from shared memory while threads copy the next stage: PTX ISA,
// "Asynchronous warpgroup level matrix instructions". A block is one warpgroup and makes 128 x 128 as two halves of 64 rows.
// Tiles lie as the unit's "128-byte swizzle" wants them, which is Tile<8>: rows of 64 elements, chunks permuted by row % 8.
#pragma once
#include "pieces.h"
#include "side.h"

constexpr int THREADS = 128, DEPTH = 64, STAGE_BYTES = 2 * SIDE * DEPTH * 2;
static_assert(SIDE == 128, "");

// Tiles with longer rows are several of 64 columns, one after another. ROWS: of the tile in all.
template <int ROWS>
struct Swizzled {
    static constexpr int ROW = 64;
    static DEVICE_MEMBER int place(int row, int chunk) { return chunk / 8 * ROWS * ROW + Tile<8>::place(row, chunk % 8); }
};

// Where an operand lies, in units of 16 bytes: start, distance of blocks of 64 columns, distance of blocks of 8 rows.
DEVICE uint64_t descriptor(const bf16* tile, int block_bytes) {
    const uint64_t start = shared_address(tile) >> 4 & 0x3FFF, swizzle = 1ull << 62;
    return start | static_cast<uint64_t>(block_bytes >> 4) << 16 | static_cast<uint64_t>(1024 >> 4) << 32 | swizzle;
}

#define FOUR(sum, i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define SIXTEEN(sum, i) FOUR(sum, i), FOUR(sum, i + 4), FOUR(sum, i + 8), FOUR(sum, i + 12)

// sum (64, 128) += a b^T over 16 terms. A_ROWS, B_ROWS: 1 if the tile's rows are terms.
template <int A_ROWS, int B_ROWS>
DEVICE void multiply_64x128(float (&sum)[64], uint64_t a, uint64_t b) {
    asm volatile(
        "{ .reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, add, 1, 1, %66, %67; }"
        : SIXTEEN(sum, 0), SIXTEEN(sum, 16), SIXTEEN(sum, 32), SIXTEEN(sum, 48)
        : "l"(a), "l"(b), "n"(A_ROWS), "n"(B_ROWS));
}

// sum (64, 8) += a b^T over 16 terms.
template <int A_ROWS>
DEVICE void multiply_64x8(float (&sum)[4], uint64_t a, uint64_t b) {
    asm volatile("{ .reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3}, %4, %5, add, 1, 1, %6, 0; }"
                 : FOUR(sum, 0)
                 : "l"(a), "l"(b), "n"(A_ROWS));
}

// A_ALONG, B_ALONG: see Copier.
template <bool A_ALONG, bool B_ALONG>
struct Product {
    static constexpr int HALF = SIDE / 2, TILE = SIDE * DEPTH;
    using LayoutA = Swizzled<A_ALONG ? SIDE : DEPTH>;
    using LayoutB = Swizzled<B_ALONG ? SIDE : DEPTH>;
    using Out = Outgoing<SIDE, HALF, 1, THREADS, 4>;
    static_assert(Out::BYTES <= STAGES * STAGE_BYTES, "");

    // epilogue, row_store, parts: see Outgoing.
    template <class Finish, class RowStore>
    static DEVICE_MEMBER void run(Matrix a, Matrix b, int64_t M, int64_t N, int64_t K, const Finish& epilogue,
                                  const RowStore& row_store, const Parts& parts) {
        extern __shared__ __align__(1024) unsigned char stage_memory[];
        __shared__ __align__(1024) uint32_t ones[256];  // as an operand of 8 rows, wherever the unit looks in it
        bf16* memory = reinterpret_cast<bf16*>(stage_memory);
        const Place place = place_of_block();
        const int64_t first_row = place.row * SIDE, first_column = place.column * SIDE;
        const Terms terms = terms_of_block(K, DEPTH);
        const bool sums_rows = RowStore::POSSIBLE && place.column == 0 && row_store.wanted();
        const Out out = {reinterpret_cast<float*>(memory), parts, place, M, N};
        if (parts.phase == ADDING) return out.add_parts(epilogue, row_store, sums_rows);
        Copier<SIDE, DEPTH, A_ALONG, THREADS, LayoutA> copier_a(a, first_row, M, terms.first, terms.last);
        Copier<SIDE, DEPTH, B_ALONG, THREADS, LayoutB> copier_b(b, first_column, N, terms.first, terms.last);
        float sums[2][64] = {}, row_sums[2][4] = {};
        if constexpr (RowStore::POSSIBLE)
            for (int i = threadIdx.x; i < 256; i += THREADS) ones[i] = 0x3F803F80u;
        auto copy_stage = [&](int stage) {
            bf16* tile = memory + stage % STAGES * (STAGE_BYTES / 2);
            if (stage < terms.stages) {
                copier_a.copy_stage(tile);
                copier_b.copy_stage(tile + TILE);
            }
            copies_commit();
        };
#pragma unroll 1
        for (int stage = 0; stage < STAGES - 1; ++stage) copy_stage(stage);
#pragma unroll 1
        for (int stage = 0; stage < terms.stages; ++stage) {
            copies_wait<STAGES - 2>();
            asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // the unit sees what threads wrote
            asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
            __syncthreads();
            const bf16 *tile_a = memory + stage % STAGES * (STAGE_BYTES / 2), *tile_b = tile_a + TILE;
            asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
            for (int k = 0; k < DEPTH; k += SQUARE) {
                // from one 16 terms to the next: along a row, or 16 rows on
                const uint64_t right = descriptor(tile_b + (B_ALONG ? k : k * 64), DEPTH * 128);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const bf16* rows = tile_a + half * (A_ALONG ? HALF * 64 : DEPTH * 64);
                    const uint64_t left = descriptor(rows + (A_ALONG ? k : k * 64), DEPTH * 128);
                    multiply_64x128<!A_ALONG, !B_ALONG>(sums[half], left, right);
                    if constexpr (RowStore::POSSIBLE)
                        if (sums_rows)
                            multiply_64x8<!A_ALONG>(row_sums[half], left, descriptor(reinterpret_cast<bf16*>(ones), 0));
                }
            }
            asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
            copy_stage(stage + STAGES - 1);
        }
        asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");

        const int lane = threadIdx.x % 32, own_row = threadIdx.x / 32 * 16 + lane / 4;
        if constexpr (RowStore::POSSIBLE)
            if (sums_rows) {
                __syncthreads();
                if (lane % 4 == 0)
#pragma unroll
                    for (int i = 0; i < 4; ++i) out.shared[i / 2 * HALF + own_row + i % 2 * 8] = row_sums[i / 2][i % 2 * 2];
                __syncthreads();
                out.write_row_sums(row_store);
            }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            __syncthreads();
#pragma unroll
            for (int i = 0; i < 64; ++i)
                out.shared[(own_row + i / 2 % 2 * 8) * Out::ROW + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[half][i];
            __syncthreads();
            out.write(half * HALF, epilogue);
        }
    }
};

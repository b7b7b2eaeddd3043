// Loads the operands of a GEMM from global into shared memory, a stage of K after another.
#pragma once
#include "gpu/gemm/matrix.h"
#include "gpu/mma/shared_tile.h"

constexpr int STAGES = 3;  // of K in shared memory, so that copies overlap with computing

// Loads ROWS rows i by STAGE_K of K into a tile, stage after stage.
// K_CONTIGUOUS: memory has element (i, k) at i * stride + k, and the tile's rows are i; otherwise memory has it at
// k * stride + i, and the tile's rows are k. Layout gives the offset of a tile's chunks and the length of its rows.
template <int ROWS, int STAGE_K, bool K_CONTIGUOUS, int BLOCK_THREADS, class Layout>
struct TileLoader {
    static constexpr int CHUNKS = (K_CONTIGUOUS ? STAGE_K : ROWS) / WIDTH;  // of a row of the tile
    static constexpr int EACH = ROWS * STAGE_K / WIDTH / BLOCK_THREADS;     // chunks per thread
    static constexpr int STEP = BLOCK_THREADS / CHUNKS;                     // tile rows between a thread's chunks
    static_assert(STEP % 8 == 0, "the permutation of a tile's chunks repeats after 8 rows");
    const bf16* next;         // the thread's first chunk of the next stage
    int64_t step;             // elements in memory between its chunks
    int64_t rows_left, left;  // rows i, and k, from its first chunk to the end
    int offset;               // of its first chunk in the tile
    bool wide;

    DEVICE_MEMBER TileLoader(Matrix source, int64_t first_row, int64_t rows, int64_t first_k, int64_t end_k) {
        const int tile_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        const int64_t i = first_row + (K_CONTIGUOUS ? tile_row : chunk * WIDTH);
        const int64_t k = first_k + (K_CONTIGUOUS ? chunk * WIDTH : tile_row);
        next = source.data + (K_CONTIGUOUS ? i * source.stride + k : k * source.stride + i);
        step = STEP * source.stride;
        rows_left = rows - i;
        left = end_k - k;
        offset = Layout::offset(tile_row, chunk);
        wide = is_wide(source.stride);
    }

    DEVICE_MEMBER void load_stage(bf16* tile) {
        if (wide) {
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const bool inside = rows_left > (K_CONTIGUOUS ? e * STEP : 0) && left > (K_CONTIGUOUS ? 0 : e * STEP);
                copy_chunk(tile + offset + e * STEP * Layout::ROW, next + e * step, inside);
            }
        } else {
#pragma unroll 1
            for (int e = 0; e < EACH; ++e) {
                const int64_t rows = rows_left - (K_CONTIGUOUS ? e * STEP : 0);
                const int64_t ks = left - (K_CONTIGUOUS ? 0 : e * STEP);
                const int64_t count = rows > 0 && ks > 0 ? (K_CONTIGUOUS ? ks : rows) : 0;
                copy_elements(tile + offset + e * STEP * Layout::ROW, next + e * step, count);
            }
        }
        next += K_CONTIGUOUS ? STAGE_K : step / STEP * STAGE_K;
        left -= STAGE_K;
    }
};

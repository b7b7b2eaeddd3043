// Which tile of C and which range of K a block computes.
#pragma once
#include "gpu/select/platform.h"

struct BlockTile {
    int64_t row, column;  // in tiles
};

// Dies of a GPU that get blocks in turn and have an L2 each: an MI300X or MI355X has 8 ("AMD CDNA 3 White Paper").
#if __gfx942__ || __gfx950__
constexpr int64_t DIES = 8;
#else
constexpr int64_t DIES = 1;
#endif

// The block's place in the order of tiles. The blocks of a die get neighbouring places: the first die the first ones.
DEVICE int64_t place_of_block() {
    const int64_t linear = int64_t{blockIdx.y} * gridDim.x + blockIdx.x, die = linear % DIES;
    const int64_t blocks = int64_t{gridDim.x} * gridDim.y, each = blocks / DIES, more = blocks % DIES;
    return die * each + (die < more ? die : more) + linear / DIES;
}

// Blocks visit the tiles in bands of BAND rows of tiles, so that blocks that run at the same time share operands in L2.
DEVICE BlockTile block_tile() {
    constexpr int64_t BAND = 8;
    const int64_t columns = gridDim.x, place = place_of_block(), size = BAND * columns;
    const int64_t first = place / size * BAND, rows = gridDim.y - first < BAND ? gridDim.y - first : BAND;
    return {first + place % size % rows, place % size / rows};
}

struct KRange {
    int64_t first, last;
    int stages;
};

// The grid's z dimension cuts K into slices, whole stages of `depth` each: see split_k.h. Where a source defines
// GEMM_PER_Z, each z is a GEMM of its own, over all of K.
DEVICE KRange k_range(int64_t K, int depth) {
#ifdef GEMM_PER_Z
    return {0, K, static_cast<int>((K + depth - 1) / depth)};
#else
    const int64_t stages = (K + depth - 1) / depth, each = (stages + gridDim.z - 1) / gridDim.z * depth;
    const int64_t first = blockIdx.z * each, last = first + each < K ? first + each : K;
    return {first, last, last > first ? static_cast<int>((last - first + depth - 1) / depth) : 0};
#endif
}

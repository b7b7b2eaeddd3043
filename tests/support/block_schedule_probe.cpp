// Calls block_tile of kernels/gpu/gemm/block_schedule.h for every block of a grid: see test_block_schedule.py.
#include "gpu/gemm/block_schedule.h"

Index threadIdx, blockIdx, blockDim, gridDim;

// row and column: of the tile of each block, in the order in which a GPU starts blocks
extern "C" __attribute__((visibility("default"))) void tiles(int columns, int rows, int* row, int* column) {
    gridDim = {static_cast<unsigned>(columns), static_cast<unsigned>(rows), 1};
    for (int i = 0; i < columns * rows; ++i) {
        blockIdx = {static_cast<unsigned>(i % columns), static_cast<unsigned>(i / columns), 0};
        const BlockTile tile = block_tile();
        row[i] = static_cast<int>(tile.row);
        column[i] = static_cast<int>(tile.column);
    }
}

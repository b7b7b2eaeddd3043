// Which tiles of C and which slices of K a persistent cluster of blocks computes, one after another.
//
// The items of work are the tiles, or, where K is cut (split_k.h), first slice 0 of all tiles, then slice 1, and so on.
// Cluster c computes items c, c + clusters, ... So clusters that run at the same time read the same range of K, which
// they share in L2. hipgpt/compute/backends/persistent_gemm.py decides on the number of slices.
#pragma once
#include "gpu/gemm/split_k.h"
#include "gpu/launch_shapes.h"

struct Work {
    int row, column;   // of a tile, in tiles
    int first, count;  // stages of K
    int item;          // its slot in the workspace
};

struct PersistentSchedule {
    static constexpr int BAND = TMA_CLUSTERS / 3;  // rows of tiles: clusters at work are this many by 3 columns
    int rows, columns, stages, slices;             // tiles down and along, stages of a tile
    int item, step;

    // Of C (M, N) with so many terms K, by all clusters of the grid.
    DEVICE_MEMBER PersistentSchedule(int64_t M, int64_t N, int64_t K, int slices)
        : rows(parts(M, TMA_CLUSTER * TMA_ROWS)),
          columns(parts(N, TMA_COLUMNS)),
          stages(parts(K, TMA_STAGE_K)),
          slices(slices),
          item(blockIdx.x / TMA_CLUSTER),
          step(gridDim.x / TMA_CLUSTER) {}

    static DEVICE_MEMBER int parts(int64_t size, int part) { return static_cast<int>((size + part - 1) / part); }

    // The next work of this cluster; false if there is none.
    DEVICE_MEMBER bool next(Work& work) {
        const int tiles = rows * columns;
        if (item >= tiles * slices) return false;
        const int each = (stages + slices - 1) / slices;
        place(item % tiles, work);
        work.first = item / tiles * each;
        work.count = stages - work.first < each ? stages - work.first : each;
        work.item = item;
        item += step;
        return true;
    }

    DEVICE_MEMBER void place(int tile, Work& work) const {
        const int size = BAND * columns, first = tile / size * BAND, high = rows - first < BAND ? rows - first : BAND;
        work.row = first + tile % size % high;
        work.column = tile % size / high;
    }
};

// Which tiles of C and which slices of K a persistent cluster of blocks computes, one after another.
//
// The items of work are the tiles, or, where K is cut (split_k.h), first slice 0 of all tiles, then slice 1, and so on.
// Cluster c computes items c, c + clusters, ... So clusters that run at the same time read the same range of K, which
// they share in L2. hipgpt/compute/backends/persistent_gemm.py decides on the number of slices.
#pragma once
#include "gpu/gemm/split_k.h"
#include "gpu/launch_shapes.h"

struct Work {
    int gemm;          // of those of the launch
    int row, column;   // of a tile, in tiles
    int first, count;  // stages of K
    int item;          // its slot in the workspace
};

// GEMMS: how many GEMMs with the same K a launch computes. Their tiles are numbered consecutively.
template <int GEMMS = 1>
struct PersistentSchedule {
    static constexpr int BAND = TMA_CLUSTERS / 3;  // rows of tiles: clusters at work are this many by 3 columns
    int rows[GEMMS], columns[GEMMS];               // of tiles
    int tiles, stages, slices;                     // of all GEMMs; stages of a tile
    int item, step;

    // sizes: rows and columns of each C.
    DEVICE_MEMBER PersistentSchedule(const int64_t (&sizes)[GEMMS][2], int64_t K, int slices)
        : tiles(0),
          stages(parts(K, TMA_STAGE_K)),
          slices(slices),
          item(blockIdx.x / TMA_CLUSTER),
          step(gridDim.x / TMA_CLUSTER) {
#pragma unroll
        for (int i = 0; i < GEMMS; ++i) {
            rows[i] = parts(sizes[i][0], TMA_CLUSTER * TMA_ROWS);
            columns[i] = parts(sizes[i][1], TMA_COLUMNS);
            tiles += rows[i] * columns[i];
        }
    }

    static DEVICE_MEMBER int parts(int64_t size, int part) { return static_cast<int>((size + part - 1) / part); }

    // The next work of this cluster; false if there is none.
    DEVICE_MEMBER bool next(Work& work) {
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
        int down = rows[0], along = columns[0];
        work.gemm = 0;
#pragma unroll
        for (int i = 1; i < GEMMS; ++i) {
            if (tile < down * along) break;
            tile -= down * along;
            down = rows[i];
            along = columns[i];
            work.gemm = i;
        }
        const int size = BAND * along, first = tile / size * BAND, high = down - first < BAND ? down - first : BAND;
        work.row = first + tile % size % high;
        work.column = tile % size / high;
    }
};

// tile_seconds: seconds of `count` GEMMs by the register tile of select/gemm_tile.h, (MR, K) by (K, NR), all in L1.
// The numbers are random, because AMX takes a fifth longer for them than for zeros.
#include "cpu/select/gemm_tile.h"
#include <algorithm>
#include <chrono>
#include <iterator>
#include <random>

extern "C" int64_t tile_operations(int64_t K) { return 2 * ROWS * PANEL * K; }

extern "C" double tile_seconds(int64_t count, int64_t K) {
    static act left[64 * 256], right[256 * 64];
    alignas(64) static Word copy[left_size(ROWS, 256)], panel[panel_size(256)];
    alignas(64) static float sums[ROWS * PANEL];
    std::minstd_rand random(1);
    const auto between = [&] { return static_cast<float>(random()) / random.max() - 0.5f; };
    std::generate(std::begin(left), std::end(left), between);
    std::generate(std::begin(right), std::end(right), between);
    begin_tiles();
    pack_right(panel, {right, PANEL, 1}, K, PANEL);
    const Left a = pack_left(copy, {left, K, 1}, ROWS, K);
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < count; ++i) multiply(a, panel, panel_size(K), sums, PANEL, ROWS, PANEL, K, false);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

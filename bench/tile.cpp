// tile_seconds: seconds of `count` GEMMs by the register tile of select/gemm_tile.h, (MR, K) by (K, NR), all in L1.
// The numbers are random, because AMX takes a fifth longer for them than for zeros.
#include "cpu/select/gemm_tile.h"
#include <algorithm>
#include <chrono>
#include <iterator>
#include <random>

extern "C" int64_t tile_operations(int64_t K) { return 2 * MR * NR * K; }

extern "C" double tile_seconds(int64_t count, int64_t K) {
    static act left[64 * 256], right[256 * 64];
    alignas(64) static PackedWord copy[packed_a_size(MR, 256)], panel[b_panel_size(256)];
    alignas(64) static float sums[MR * NR];
    std::minstd_rand random(1);
    const auto between = [&] { return static_cast<float>(random()) / random.max() - 0.5f; };
    std::generate(std::begin(left), std::end(left), between);
    std::generate(std::begin(right), std::end(right), between);
    begin_tiles();
    pack_b(panel, {right, NR, 1}, K, NR);
    const PackedA a = pack_a(copy, {left, K, 1}, MR, K, NR);
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < count; ++i) multiply(a, panel, b_panel_size(K), sums, NR, MR, NR, K, false);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

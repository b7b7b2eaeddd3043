// tile_seconds: seconds of `count` products by the register tile of product.h, (ROWS, K) by (K, PANEL), all in the first cache.
#include "product.h"
#include <chrono>

extern "C" int64_t tile_operations(int64_t K) { return 2 * ROWS * PANEL * K; }

extern "C" double tile_seconds(int64_t count, int64_t K) {
    static act left[64 * 256], right[256 * 64];
    alignas(64) static Word copy[left_size(ROWS, 256)], panel[panel_size(256)];
    alignas(64) static float sums[ROWS * PANEL];
    begin_tiles();
    pack_right(panel, {right, PANEL, 1}, K, PANEL);
    const Left a = pack_left(copy, {left, K, 1}, ROWS, K);
    const auto begin = std::chrono::steady_clock::now();
    for (int64_t i = 0; i < count; ++i) multiply(a, panel, panel_size(K), sums, PANEL, ROWS, PANEL, K, false);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// The instructions of AMX: eight tiles of 16 rows of up to 64 bytes. Tiles 0 to 3 hold sums, 4 and 5 A, 6 and 7 B.
#pragma once
#include <algorithm>
#include <cstdint>
#include <immintrin.h>
#include <initializer_list>

struct alignas(64) TileConfiguration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};

    TileConfiguration(std::initializer_list<int> bytes) { std::copy(bytes.begin(), bytes.end(), row_bytes); }
};

// A configuration holds for the calling thread until it ends or configures its tiles again.
inline void configure_tiles(const TileConfiguration& configuration) { _tile_loadconfig(&configuration); }

// Macros, because compilers want the number of a tile as a literal.
#define ZERO_TILE(tile) _tile_zero(tile)
#define LOAD_TILE(tile, source, row_bytes) _tile_loadd(tile, source, row_bytes)
#define STORE_TILE(tile, target, row_bytes) _tile_stored(tile, target, row_bytes)
#define MULTIPLY_TILES(sums, a, b) _tile_dpbf16ps(sums, a, b)

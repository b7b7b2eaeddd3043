// The instructions of AMX under the names of amx_instructions.h, in plain C++ for processors without AMX. They follow
// Intel's pseudocode of TDPBF16PS, except that denormals are not flushed to zero.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>

struct TileConfiguration {
    int row_bytes[8];
    TileConfiguration(std::initializer_list<int> bytes) { std::copy(bytes.begin(), bytes.end(), row_bytes); }
};

static thread_local uint8_t tiles[8][16][64];
static thread_local const int* widths;

inline void configure_tiles(const TileConfiguration& configuration) {
    widths = configuration.row_bytes;
    memset(tiles, 0x7F, sizeof tiles);  // NaN in every format, so that a value that was not set shows
}

inline void zero_tile(int tile) { memset(tiles[tile], 0, sizeof tiles[tile]); }

inline void load_tile(int tile, const void* source, int64_t row_bytes) {
    for (int row = 0; row < 16; ++row)
        memcpy(tiles[tile][row], static_cast<const char*>(source) + row * row_bytes, widths[tile]);
}

inline void store_tile(int tile, void* target, int64_t row_bytes) {
    for (int row = 0; row < 16; ++row)
        memcpy(static_cast<char*>(target) + row * row_bytes, tiles[tile][row], widths[tile]);
}

inline float bf16_at(const uint8_t* row, int index) {
    const uint32_t bits = static_cast<uint32_t>(row[2 * index]) << 16 | static_cast<uint32_t>(row[2 * index + 1]) << 24;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// As the hardware does: even and odd terms are summed separately from zero, and both sums are added to the tile.
inline void multiply_tiles(int sums, int a, int b) {
    for (int row = 0; row < 16; ++row)
        for (int column = 0; column < widths[sums] / 4; ++column) {
            float sum, halves[2] = {};
            for (int pair = 0; pair < 16; ++pair)
                for (int half = 0; half < 2; ++half)
                    halves[half] +=
                        bf16_at(tiles[a][row], 2 * pair + half) * bf16_at(tiles[b][pair], 2 * column + half);
            memcpy(&sum, &tiles[sums][row][4 * column], 4);
            sum += halves[0] + halves[1];
            memcpy(&tiles[sums][row][4 * column], &sum, 4);
        }
}

#define ZERO_TILE zero_tile
#define LOAD_TILE load_tile
#define STORE_TILE store_tile
#define MULTIPLY_TILES multiply_tiles

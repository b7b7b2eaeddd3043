// Words as keys: up to 15 bytes in two numbers, then zeros, and the length in the last byte.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bpe {

inline uint64_t mixed(uint64_t number) {
    const unsigned __int128 product = static_cast<unsigned __int128>(number) * 0x9E3779B97F4A7C15u;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

constexpr unsigned char ONES_AND_ZEROS[32] = {255, 255, 255, 255, 255, 255, 255, 255,
                                              255, 255, 255, 255, 255, 255, 255, 255};

struct Key {
    static constexpr size_t MOST_BYTES = 15;
    uint64_t numbers[2];

    Key() = default;
    Key(uint64_t first, uint64_t second) : numbers{first, second} {}

    // Reads 16 bytes; size is at most MOST_BYTES. It takes no branch, because sizes follow no pattern.
    Key(const char* word, size_t size) {
        uint64_t mask[2];
        std::memcpy(numbers, word, sizeof numbers);
        std::memcpy(mask, &ONES_AND_ZEROS[16 - size], sizeof mask);
        numbers[0] &= mask[0];
        numbers[1] = (numbers[1] & mask[1]) | static_cast<uint64_t>(size) << 56;
    }

    size_t size() const { return numbers[1] >> 56; }
    bool operator==(const Key& other) const {
        return ((numbers[0] ^ other.numbers[0]) | (numbers[1] ^ other.numbers[1])) == 0;
    }
    uint64_t hash() const { return mixed(mixed(numbers[0]) ^ numbers[1]); }
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "keys hold a word's bytes in memory's order");

inline uint64_t hash_bytes(const char* bytes, size_t size) {
    uint64_t hash = size;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t number;
        std::memcpy(&number, bytes, 8);
        hash = mixed(hash ^ number);
    }
    uint64_t rest = 0;
    std::memcpy(&rest, bytes, size);
    return mixed(hash ^ rest);
}

}  // namespace bpe

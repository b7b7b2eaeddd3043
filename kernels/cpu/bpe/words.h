// Words as keys: up to 15 bytes in two numbers, up to 31 in four, zeros after them and the length in the last byte.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace bpe {

template <size_t NUMBERS>
struct Key {
    static constexpr size_t MOST_BYTES = 8 * NUMBERS - 1;
    uint64_t numbers[NUMBERS];

    Key() = default;

    // Reads 8 * NUMBERS bytes; size is at least 1 and at most MOST_BYTES.
    Key(const char* word, size_t size) {
        std::memcpy(numbers, word, sizeof numbers);
        for (size_t i = 0; i < NUMBERS; ++i) {
            const size_t kept = size > 8 * i ? size - 8 * i : 0;
            if (kept < 8) numbers[i] &= (uint64_t{1} << 8 * kept) - 1;
        }
        numbers[NUMBERS - 1] |= static_cast<uint64_t>(size) << 56;
    }

    size_t size() const { return numbers[NUMBERS - 1] >> 56; }

    bool operator==(const Key& other) const {
        uint64_t difference = 0;
        for (size_t i = 0; i < NUMBERS; ++i) difference |= numbers[i] ^ other.numbers[i];
        return difference == 0;
    }

    uint64_t hash() const {
        uint64_t hash = 0;
        for (size_t i = 0; i < NUMBERS; ++i) hash = mixed(hash ^ numbers[i]);
        return hash;
    }

    static uint64_t mixed(uint64_t number) {
        const unsigned __int128 product = static_cast<unsigned __int128>(number) * 0x9E3779B97F4A7C15u;
        return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
    }
};

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "keys hold a word's bytes in memory's order");

inline uint64_t hash_bytes(const char* bytes, size_t size) {
    uint64_t hash = size;
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t number;
        std::memcpy(&number, bytes, 8);
        hash = Key<1>::mixed(hash ^ number);
    }
    uint64_t rest = 0;
    std::memcpy(&rest, bytes, size);
    return Key<1>::mixed(hash ^ rest);
}

}  // namespace bpe

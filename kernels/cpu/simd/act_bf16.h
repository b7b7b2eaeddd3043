// The dtype of activations, for the kernels of this compilation: bf16, the upper half of an f32. Sums are f32.
#pragma once
#include <cstdint>
#include <cstring>

struct bf16 {
    uint16_t bits;

    bf16() = default;
    bf16(float value) {  // to the nearest, of two as near to the even one
        uint32_t word;
        memcpy(&word, &value, 4);
        const bool is_nan = (word & 0x7FFFFFFF) > 0x7F800000;
        bits = static_cast<uint16_t>((is_nan ? word | 0x400000 : word + 0x7FFF + (word >> 16 & 1)) >> 16);
    }
    operator float() const {
        const uint32_t word = static_cast<uint32_t>(bits) << 16;
        float value;
        memcpy(&value, &word, 4);
        return value;
    }
};

typedef bf16 act;

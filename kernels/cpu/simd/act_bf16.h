// The dtype of activations in this compilation: bf16, the upper half of an f32. Sums are f32.
#pragma once
#include <cstdint>
#include <cstring>

struct bf16 {
    uint16_t bits;

    bf16() = default;
    bf16(float value) {  // round to nearest, ties to even
        uint32_t wide;
        memcpy(&wide, &value, 4);
        const bool is_nan = (wide & 0x7FFFFFFF) > 0x7F800000;
        bits = static_cast<uint16_t>((is_nan ? wide | 0x400000 : wide + 0x7FFF + (wide >> 16 & 1)) >> 16);
    }
    operator float() const {
        const uint32_t wide = static_cast<uint32_t>(bits) << 16;
        float value;
        memcpy(&value, &wide, 4);
        return value;
    }
};

typedef bf16 act;

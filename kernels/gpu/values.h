// Elements of memory as f32 values: act is float or bf16. Groups of WIDTH neighbours go by one access of 16 or 32 bytes.
#pragma once
#include "platform.h"
#include "act.h"

DEVICE float widen(float value) { return value; }
DEVICE float widen(bf16 value) { return bits_float(value.bits << 16); }

DEVICE void narrow(float& target, float value) { target = value; }
DEVICE void narrow(bf16& target, float value) { target.bits = static_cast<unsigned short>(bf16_pair(value, 0.0f)); }

struct alignas(16) Words {
    uint32_t word[4];
};

constexpr int WIDTH = 8;

// Whether rows of `columns` elements can be read and written WIDTH at a time: arenas align their tensors.
DEVICE bool is_wide(int64_t columns) { return columns % WIDTH == 0; }

DEVICE void load(float (&values)[1], const float* source) { values[0] = *source; }
DEVICE void load(float (&values)[1], const bf16* source) { values[0] = widen(*source); }
DEVICE void load(float (&values)[WIDTH], const float* source) {
    for (int half = 0; half < 2; ++half) {
        const Words words = reinterpret_cast<const Words*>(source)[half];
        for (int i = 0; i < 4; ++i) values[4 * half + i] = bits_float(words.word[i]);
    }
}
DEVICE void load(float (&values)[WIDTH], const bf16* source) {
    const Words words = *reinterpret_cast<const Words*>(source);
    for (int i = 0; i < 4; ++i) {
        values[2 * i] = bits_float(words.word[i] << 16);
        values[2 * i + 1] = bits_float(words.word[i] & 0xFFFF0000u);
    }
}

DEVICE void store(float* target, const float (&values)[1]) { *target = values[0]; }
DEVICE void store(bf16* target, const float (&values)[1]) { narrow(*target, values[0]); }
DEVICE void store(float* target, const float (&values)[WIDTH]) {
    for (int half = 0; half < 2; ++half) {
        Words words;
        for (int i = 0; i < 4; ++i) words.word[i] = float_bits(values[4 * half + i]);
        reinterpret_cast<Words*>(target)[half] = words;
    }
}
DEVICE void store(bf16* target, const float (&values)[WIDTH]) {
    Words words;
    for (int i = 0; i < 4; ++i) words.word[i] = bf16_pair(values[2 * i], values[2 * i + 1]);
    *reinterpret_cast<Words*>(target) = words;
}

// WIDTH neighbours, of which the first `count` are inside; aligned: at an address as `load` and `store` want it.
template <class T>
DEVICE void load_some(float (&values)[WIDTH], const T* source, int64_t count, bool aligned) {
    if (aligned && count >= WIDTH) return load(values, source);
    for (int i = 0; i < WIDTH; ++i) values[i] = i < count ? widen(source[i]) : 0.0f;
}
template <class T>
DEVICE void store_some(T* target, const float (&values)[WIDTH], int64_t count, bool aligned) {
    if (aligned && count >= WIDTH) return store(target, values);
    for (int i = 0; i < WIDTH; ++i)
        if (i < count) narrow(target[i], values[i]);
}

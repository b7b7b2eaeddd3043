// Elements in memory to f32 values and back; act is float or bf16. A vector load or store moves WIDTH neighbours by
// accesses of 16 bytes: one for bf16, two for f32.
#pragma once
#include "gpu/select/platform.h"
#include "gpu/select/act.h"
#include "gpu/launch_shapes.h"

DEVICE float widen(float value) { return value; }
DEVICE float widen(bf16 value) { return bits_float(value.bits << 16); }

DEVICE void narrow(float& target, float value) { target = value; }
DEVICE void narrow(bf16& target, float value) { target.bits = static_cast<unsigned short>(bf16_pair(value, 0.0f)); }

// The 16 bytes of one memory access.
struct alignas(16) Vector {
    uint32_t word[4];
};

struct alignas(8) HalfVector {
    uint32_t word[2];
};

// Exchanges the words of lanes DISTANCE apart, so that two of each lane change places with the other's.
template <int DISTANCE>
DEVICE void exchange_words(Vector& vector) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        uint32_t& low = vector.word[DISTANCE == 1 ? 2 * i : i];
        uint32_t& high = vector.word[DISTANCE == 1 ? 2 * i + 1 : i + 2];
        const bool upper = threadIdx.x & DISTANCE;
        const float got = wave_exchange<DISTANCE>(bits_float(upper ? low : high));
        (upper ? low : high) = float_bits(got);
    }
}

// Transposes the words of four neighbouring lanes, a matrix of 4 x 4: first within its quarters, then the quarters.
DEVICE void transpose_words(Vector& vector) {
    exchange_words<1>(vector);
    exchange_words<2>(vector);
}

// Whether rows of `columns` elements can be moved by vector loads: arenas align the start of every tensor.
DEVICE bool is_wide(int64_t columns) { return columns % WIDTH == 0; }

DEVICE void load(float (&values)[1], const float* source) { values[0] = *source; }
DEVICE void load(float (&values)[1], const bf16* source) { values[0] = widen(*source); }
DEVICE void load(float (&values)[2], const float* source) {
    const HalfVector pair = *reinterpret_cast<const HalfVector*>(source);
    for (int i = 0; i < 2; ++i) values[i] = bits_float(pair.word[i]);
}
DEVICE void load(float (&values)[2], const bf16* source) {
    const uint32_t pair = *reinterpret_cast<const uint32_t*>(source);
    values[0] = bits_float(pair << 16);
    values[1] = bits_float(pair & 0xFFFF0000u);
}
DEVICE void load(float (&values)[4], const float* source) {
    const Vector vector = *reinterpret_cast<const Vector*>(source);
    for (int i = 0; i < 4; ++i) values[i] = bits_float(vector.word[i]);
}
DEVICE void load(float (&values)[4], const bf16* source) {
    const HalfVector pairs = *reinterpret_cast<const HalfVector*>(source);
    for (int i = 0; i < 2; ++i) {
        values[2 * i] = bits_float(pairs.word[i] << 16);
        values[2 * i + 1] = bits_float(pairs.word[i] & 0xFFFF0000u);
    }
}
DEVICE void load(float (&values)[WIDTH], const float* source) {
    for (int half = 0; half < 2; ++half) {
        const Vector vector = reinterpret_cast<const Vector*>(source)[half];
        for (int i = 0; i < 4; ++i) values[4 * half + i] = bits_float(vector.word[i]);
    }
}
DEVICE void widen(float (&values)[WIDTH], const Vector& vector) {
    for (int i = 0; i < 4; ++i) {
        values[2 * i] = bits_float(vector.word[i] << 16);
        values[2 * i + 1] = bits_float(vector.word[i] & 0xFFFF0000u);
    }
}
DEVICE void load(float (&values)[WIDTH], const bf16* source) {
    const Vector vector = *reinterpret_cast<const Vector*>(source);  // a copy: by reference, words are loaded singly
    widen(values, vector);
}

DEVICE void store(float* target, const float (&values)[1]) { *target = values[0]; }
DEVICE void store(bf16* target, const float (&values)[1]) { narrow(*target, values[0]); }
DEVICE void store(float* target, const float (&values)[2]) {
    *reinterpret_cast<HalfVector*>(target) = {
        {static_cast<uint32_t>(float_bits(values[0])), static_cast<uint32_t>(float_bits(values[1]))}};
}
DEVICE void store(bf16* target, const float (&values)[2]) {
    *reinterpret_cast<uint32_t*>(target) = bf16_pair(values[0], values[1]);
}
DEVICE void store(float* target, const float (&values)[4]) {
    Vector vector;
    for (int i = 0; i < 4; ++i) vector.word[i] = static_cast<uint32_t>(float_bits(values[i]));
    *reinterpret_cast<Vector*>(target) = vector;
}
DEVICE void store(bf16* target, const float (&values)[4]) {
    *reinterpret_cast<HalfVector*>(target) = {{bf16_pair(values[0], values[1]), bf16_pair(values[2], values[3])}};
}
DEVICE void store(float* target, const float (&values)[WIDTH]) {
    for (int half = 0; half < 2; ++half) {
        Vector vector;
        for (int i = 0; i < 4; ++i) vector.word[i] = float_bits(values[4 * half + i]);
        reinterpret_cast<Vector*>(target)[half] = vector;
    }
}
DEVICE Vector rounded(const float (&values)[WIDTH]) {
    Vector vector;
    for (int i = 0; i < 4; ++i) vector.word[i] = bf16_pair(values[2 * i], values[2 * i + 1]);
    return vector;
}
DEVICE void store(bf16* target, const float (&values)[WIDTH]) { *reinterpret_cast<Vector*>(target) = rounded(values); }

// EACH neighbours of which the first `count` are inside a tensor. aligned: a vector load may read this address.
template <class T, int EACH>
DEVICE void load_some(float (&values)[EACH], const T* source, int64_t count, bool aligned) {
    if (aligned && count >= EACH) return load(values, source);
    for (int i = 0; i < EACH; ++i) values[i] = i < count ? widen(source[i]) : 0.0f;
}
template <class T, int EACH>
DEVICE void store_some(T* target, const float (&values)[EACH], int64_t count, bool aligned) {
    if (aligned && count >= EACH) return store(target, values);
    for (int i = 0; i < EACH; ++i)
        if (i < count) narrow(target[i], values[i]);
}

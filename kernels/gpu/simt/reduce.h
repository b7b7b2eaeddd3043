// Sums and maxima over the lanes of a wave and over a block. The order is fixed, so the same inputs give the same bits.
#pragma once
#include "gpu/select/platform.h"

DEVICE float wave_sum(float value) { return sum_of_lanes<WAVE>(value); }
DEVICE float wave_maximum(float value) { return maximum_of_lanes<WAVE>(value); }

// The value of the lane whose index differs in the bits of LANE_MASK.
template <int LANE_MASK>
DEVICE double wave_exchange(double value) {
    const uint64_t bits = double_bits(value);
    const uint32_t low = float_bits(wave_exchange<LANE_MASK>(bits_float(static_cast<int32_t>(bits))));
    const uint32_t high = float_bits(wave_exchange<LANE_MASK>(bits_float(static_cast<int32_t>(bits >> 32))));
    return bits_double(static_cast<uint64_t>(high) << 32 | low);
}

// Over LANES neighbouring lanes, in the same order as sums in f32.
template <int LANES>
DEVICE double sum_of_lanes(double value) {
    value += wave_exchange<LANES / 2>(value);
    if constexpr (LANES > 2) value = sum_of_lanes<LANES / 2>(value);
    return value;
}

// Over a one-dimensional block, in f32 or f64. All its threads must call it, and every thread gets the result.
template <int BLOCK_THREADS, class T>
DEVICE T block_sum(T value) {
    __shared__ T wave_sums[BLOCK_THREADS / WAVE];
    value = sum_of_lanes<WAVE>(value);
    __syncthreads();
    if (threadIdx.x % WAVE == 0) wave_sums[threadIdx.x / WAVE] = value;
    __syncthreads();
    T sum = 0;
    for (int wave = 0; wave < BLOCK_THREADS / WAVE; ++wave) sum += wave_sums[wave];
    return sum;
}

DEVICE float greater_of(float first, float second) { return fmaxf(first, second); }
DEVICE uint64_t greater_of(uint64_t first, uint64_t second) { return second > first ? second : first; }

// Over LANES neighbouring lanes, of unsigned numbers.
template <int LANES>
DEVICE uint64_t maximum_of_lanes(uint64_t value) {
    value = greater_of(value, double_bits(wave_exchange<LANES / 2>(bits_double(value))));
    if constexpr (LANES > 2) value = maximum_of_lanes<LANES / 2>(value);
    return value;
}

// Over a one-dimensional block, of f32 or unsigned numbers, as block_sum.
template <int BLOCK_THREADS, class T>
DEVICE T block_maximum(T value) {
    __shared__ T wave_maxima[BLOCK_THREADS / WAVE];
    value = maximum_of_lanes<WAVE>(value);
    __syncthreads();
    if (threadIdx.x % WAVE == 0) wave_maxima[threadIdx.x / WAVE] = value;
    __syncthreads();
    T maximum = wave_maxima[0];
    for (int wave = 1; wave < BLOCK_THREADS / WAVE; ++wave) maximum = greater_of(maximum, wave_maxima[wave]);
    return maximum;
}

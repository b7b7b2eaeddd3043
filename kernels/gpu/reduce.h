// Sums and maxima over the lanes of a wave and over a block, in a fixed order.
#pragma once

DEVICE float wave_sum(float value) {
    for (int mask = WAVE / 2; mask > 0; mask /= 2) value += wave_exchange(value, mask);
    return value;
}

DEVICE float wave_maximum(float value) {
    for (int mask = WAVE / 2; mask > 0; mask /= 2) value = fmaxf(value, wave_exchange(value, mask));
    return value;
}

// Over a block of THREADS threads (one dimension); every thread gets the result. All threads must call it.
template <int THREADS>
DEVICE float block_sum(float value) {
    __shared__ float parts[THREADS / WAVE];
    value = wave_sum(value);
    __syncthreads();
    if (threadIdx.x % WAVE == 0) parts[threadIdx.x / WAVE] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int part = 0; part < THREADS / WAVE; ++part) sum += parts[part];
    return sum;
}

// The same in f64, as a tree in shared memory: for the few sums that the contract asks for in f64.
template <int THREADS>
DEVICE double block_sum(double value) {
    __shared__ double parts[THREADS];
    __syncthreads();
    parts[threadIdx.x] = value;
    __syncthreads();
    for (unsigned half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
        __syncthreads();
    }
    return parts[0];
}

template <int THREADS>
DEVICE float block_maximum(float value) {
    __shared__ float parts[THREADS / WAVE];
    value = wave_maximum(value);
    __syncthreads();
    if (threadIdx.x % WAVE == 0) parts[threadIdx.x / WAVE] = value;
    __syncthreads();
    float maximum = parts[0];
    for (int part = 1; part < THREADS / WAVE; ++part) maximum = fmaxf(maximum, parts[part]);
    return maximum;
}

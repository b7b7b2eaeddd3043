// Formulas that every backend must compute alike: exp, GELU, one element of AdamW, Philox counters.
// A GPU build defines HIPGPT_SCALAR, float_bits and bits_float for its platform before it includes this file.
#pragma once

#ifndef HIPGPT_SCALAR
#include <cmath>
#include <cstdint>
#include <cstring>
#define HIPGPT_SCALAR static inline

HIPGPT_SCALAR int32_t float_bits(float value) {
    int32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

HIPGPT_SCALAR float bits_float(int32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}
#endif

// e^x in f32, x clamped to [-87, 88]; the error is below 2 units in the last place.
//   x = n ln 2 + r with |r| <= ln(2)/2;  e^x = 2^n e^r;  2^n is made from its bits, e^r is a polynomial of degree 6.
// The polynomial is the one with the smallest maximal relative error, 3.6e-9; the error of the Taylor series, 1.6e-7,
// would cost 2 units by itself. There is no branch, so that compilers turn loops over exp_f32 into vector code.
HIPGPT_SCALAR float exp_f32(float x) {
    const float round_to_integer = 12582912.0f;  // 1.5 * 2^23: adding it leaves round(x) in the low bits
    // clamped as integers, because floats of one sign are ordered as their bits are: compilers turn these comparisons
    // into minima, but float comparisons into branches
    const uint32_t lowest = 0xC2AE0000u;  // -87
    const int32_t highest = 0x42B00000;   // 88
    const uint32_t bits = static_cast<uint32_t>(float_bits(x));
    const int32_t at_least = static_cast<int32_t>(bits < lowest ? bits : lowest);
    x = bits_float(at_least < highest ? at_least : highest);
    const float shifted = x * 1.44269504f + round_to_integer;
    const float n = shifted - round_to_integer;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 as a sum of two: n times the first is exact
    float series = 0.00138145406f;
    series = series * r + 0.00836874545f;
    series = series * r + 0.041668389f;
    series = series * r + 0.166665211f;
    series = series * r + 0.49999994f;
    series = series * r + 1.0f;
    series = series * r + 1.0f;
    const uint32_t exponent = static_cast<uint32_t>(float_bits(shifted)) - 0x4B400000u + 127u;
    return series * bits_float(static_cast<int32_t>(exponent << 23));
}

// A compilation whose results are rounded to bf16 defines HIPGPT_QUICK. Its platform then has quick_exp and
// quick_reciprocal, by instructions of the chip; they are off by about 2^-22, quick_exp by another 2^-24 |x|.
#ifdef HIPGPT_QUICK
HIPGPT_SCALAR float exp_of(float x) { return quick_exp(x); }
HIPGPT_SCALAR float reciprocal(float x) { return quick_reciprocal(x); }
#else
HIPGPT_SCALAR float exp_of(float x) { return exp_f32(x); }
HIPGPT_SCALAR float reciprocal(float x) { return 1.0f / x; }
#endif

// GELU by its tanh form, 0.5 x (1 + tanh(u)) with u = sqrt(2/pi) (x + 0.044715 x^3), as x s with s = 1 / (1 + e^(-2u)),
// which is the same and takes half as many operations. Hendrycks & Gimpel 2016, arXiv:1606.08415.
HIPGPT_SCALAR float gelu_gate(float x) { return reciprocal(1.0f + exp_of(x * (-1.59576912f - 0.0713548163f * x * x))); }

// An activation function at x, and its derivative there. Both are computed in the forward pass, because they share most
// of their arithmetic.
struct Activated {
    float value, slope;
};

// The slope is s + x s (1 - s) 2u'.
HIPGPT_SCALAR Activated gelu(float x) {
    const float gate = gelu_gate(x);
    return {x * gate, gate + x * (gate - gate * gate) * (1.59576912f + 3.0f * 0.0713548163f * x * x)};
}

HIPGPT_SCALAR Activated relu(float x) { return {x > 0.0f ? x : 0.0f, x > 0.0f ? 1.0f : 0.0f}; }

// ReLU^2. So et al. 2021, arXiv:2109.08668.
HIPGPT_SCALAR Activated relu2(float x) { return {x > 0.0f ? x * x : 0.0f, x > 0.0f ? 2.0f * x : 0.0f}; }

// One of them, by its number in a kernel that serves all.
HIPGPT_SCALAR Activated activated(float x, int32_t activation) {
    return activation == 0 ? gelu(x) : activation == 1 ? relu(x) : relu2(x);
}

// SiLU, the gate of SwiGLU: x / (1 + e^-x). Hendrycks & Gimpel 2016, arXiv:1606.08415; Shazeer 2020, arXiv:2002.05202.
HIPGPT_SCALAR float silu(float x) { return x * reciprocal(1.0f + exp_of(-x)); }

HIPGPT_SCALAR float silu_derivative(float x) {
    const float sigmoid = reciprocal(1.0f + exp_of(-x));
    return sigmoid * (1.0f + x * (1.0f - sigmoid));
}

struct AdamwSettings {
    float learning_rate, first_correction, second_correction;  // corrections: 1 / (1 - beta^step)
    float beta1, beta2, epsilon, weight_decay, clip_factor;
};

// One element of AdamW with clipping. Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
HIPGPT_SCALAR void adamw_element(float& weight, float& first, float& second, float gradient, const AdamwSettings& s) {
    gradient *= s.clip_factor;
    first = s.beta1 * first + (1.0f - s.beta1) * gradient;
    second = s.beta2 * second + (1.0f - s.beta2) * gradient * gradient;
    const float direction = first * s.first_correction / (sqrtf(second * s.second_correction) + s.epsilon);
    weight -= s.learning_rate * (direction + s.weight_decay * weight);
}

// Philox4x32-10: four random words of 32 bits from a counter and a key.
// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
struct Philox {
    uint32_t word[4];
};

HIPGPT_SCALAR Philox philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
        c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ key0;
        c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ key1;
        c1 = static_cast<uint32_t>(b);
        c3 = static_cast<uint32_t>(a);
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return {{c0, c1, c2, c3}};
}

// The upper 64 bits of a product.
HIPGPT_SCALAR uint64_t upper_product(uint64_t a, uint64_t b) {
    const uint64_t low = 0xFFFFFFFFull, a0 = a & low, a1 = a >> 32, b0 = b & low, b1 = b >> 32;
    const uint64_t middle = a1 * b0 + (a0 * b0 >> 32), other = a0 * b1 + (middle & low);
    return a1 * b1 + (middle >> 32) + (other >> 32);
}

// Number `index` of a stream of uniform numbers in [0, 1), by Philox4x64-10: that of NumPy's
// Generator(Philox(key=[key0, key1])).random(), which begins with the counter 1.
HIPGPT_SCALAR double uniform_number(uint64_t index, uint64_t key0, uint64_t key1) {
    uint64_t c0 = index / 4 + 1, c1 = 0, c2 = 0, c3 = 0;
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = 0xD2E7470EE14C6C93ull, b = 0xCA5A826395121157ull;
        const uint64_t upper_a = upper_product(a, c0), upper_b = upper_product(b, c2);
        const uint64_t lower_a = a * c0, lower_b = b * c2;
        c0 = upper_b ^ c1 ^ key0;
        c1 = lower_b;
        c2 = upper_a ^ c3 ^ key1;
        c3 = lower_a;
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
    const uint64_t word = index % 4 == 0 ? c0 : index % 4 == 1 ? c1 : index % 4 == 2 ? c2 : c3;
    return static_cast<double>(word >> 11) * 0x1p-53;
}

// The same by a row of draw_token's keys: two keys of 64 bits, the lower halves first.
HIPGPT_SCALAR double uniform_number(int64_t index, const int32_t* key) {
    uint64_t words[4];
    for (int i = 0; i < 4; ++i) words[i] = static_cast<uint32_t>(key[i]);
    return uniform_number(static_cast<uint64_t>(index), words[0] | words[1] << 32, words[2] | words[3] << 32);
}

// How a token is drawn: a row of draw_token's settings. temperature 0 takes the greatest score; top_k 0 and top_p 1 leave
// no token out.
struct Sampling {
    float temperature, top_k, top_p, repetition_penalty;
};

HIPGPT_SCALAR Sampling sampling_of(const float* row) { return {row[0], row[1], row[2], row[3]}; }

HIPGPT_SCALAR float penalized(float logit, float penalty) { return logit > 0.0f ? logit / penalty : logit * penalty; }

// A token's probability up to a factor: 1 for the greatest score.
HIPGPT_SCALAR float weight_of(float score, float greatest, float temperature) {
    return exp_f32((score - greatest) / temperature);
}

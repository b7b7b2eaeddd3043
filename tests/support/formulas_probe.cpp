// What kernels/formulas.h computes, laid open for test_formulas.py.
#include "formulas.h"

// The largest error of exp_f32 in units in the last place of the result, over the f32 numbers with bits first, first +
// stride, ... up to last, against the C library's exp in f64; at: where it is.
extern "C" double exp_error_ulps(uint32_t first, uint32_t last, uint32_t stride, float* at) {
    double largest = 0;
    for (uint64_t bits = first; bits <= last; bits += stride) {
        const auto word = static_cast<uint32_t>(bits);
        float x;
        memcpy(&x, &word, 4);
        const double exact = std::exp(static_cast<double>(x));
        int exponent;
        std::frexp(exact, &exponent);
        const double error = std::fabs(exp_f32(x) - exact) * std::ldexp(1.0, 24 - exponent);
        if (!(error <= largest)) {
            largest = error;
            *at = x;
        }
    }
    return largest;
}

extern "C" float exp_f32_of(float x) { return exp_f32(x); }

extern "C" void philox_of(uint32_t* words, const uint32_t* counter, const uint32_t* key) {
    const Philox random = philox(counter[0], counter[1], counter[2], counter[3], key[0], key[1]);
    memcpy(words, random.word, sizeof random.word);
}

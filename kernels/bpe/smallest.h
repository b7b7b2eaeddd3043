// A few numbers, the smallest of which is asked for after each change. AVX2 keeps them in registers, because an array
// would be written number by number and read by whole vectors, and such a read waits for the writes.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include "bpe/tokens.h"
#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace bpe {

// Numbers at the places 1 to COUNT, a multiple of 8, all of them NONE at first. A number at place 0 is ignored.
template <size_t COUNT>
class Smallest {
#ifdef __AVX2__
   public:
    Smallest() {
        for (__m256i& part : parts_) part = _mm256_set1_epi32(-1);
    }
    void set(size_t place, uint32_t number) {
        const __m256i wanted = _mm256_set1_epi32(place), value = _mm256_set1_epi32(number);
        __m256i places = _mm256_setr_epi32(1, 2, 3, 4, 5, 6, 7, 8);
        for (__m256i& part : parts_) {
            part = _mm256_blendv_epi8(part, value, _mm256_cmpeq_epi32(places, wanted));
            places = _mm256_add_epi32(places, _mm256_set1_epi32(8));
        }
    }
    uint32_t get() const {
        __m256i least = parts_[0];
        for (size_t i = 1; i < COUNT / 8; ++i) least = _mm256_min_epu32(least, parts_[i]);
        __m128i four = _mm_min_epu32(_mm256_castsi256_si128(least), _mm256_extracti128_si256(least, 1));
        four = _mm_min_epu32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
        four = _mm_min_epu32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
        return _mm_cvtsi128_si32(four);
    }

   private:
    __m256i parts_[COUNT / 8];
#else
   public:
    Smallest() { std::fill_n(numbers_, COUNT + 1, NONE); }
    void set(size_t place, uint32_t number) { numbers_[place] = number; }
    uint32_t get() const {
        uint32_t least = NONE;
        for (size_t place = 1; place <= COUNT; ++place) least = std::min(least, numbers_[place]);
        return least;
    }

   private:
    uint32_t numbers_[COUNT + 1];  // so that place 0 needs no test
#endif
};

}  // namespace bpe

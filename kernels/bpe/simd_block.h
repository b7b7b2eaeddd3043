// 64 bytes of text compared at once, into 64 bits: by AVX-512, by AVX2, or by arithmetic on 8-byte words.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX512BW__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace bpe {

#if defined(__AVX512BW__)

struct Block {
    __m512i bytes;

    explicit Block(const char* text) : bytes(_mm512_loadu_si512(text)) {}
    uint64_t equal(char c) const { return _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(c)); }
    uint64_t not_ascii() const { return _mm512_movepi8_mask(bytes); }
    // Bit i is set if low <= (bytes[i] | set) <= high, unsigned.
    uint64_t within(uint8_t low, uint8_t high, uint8_t set = 0) const {
        const __m512i shifted = _mm512_sub_epi8(_mm512_or_si512(bytes, _mm512_set1_epi8(set)), _mm512_set1_epi8(low));
        return _mm512_cmple_epu8_mask(shifted, _mm512_set1_epi8(high - low));
    }
};

#elif defined(__AVX2__)

struct Block {
    __m256i halves[2];

    explicit Block(const char* text) {
        for (int i = 0; i < 2; ++i) halves[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(text) + i);
    }
    uint64_t equal(char c) const {
        return joined([&](__m256i half) { return _mm256_cmpeq_epi8(half, _mm256_set1_epi8(c)); });
    }
    uint64_t not_ascii() const {
        return joined([](__m256i half) { return half; });
    }
    uint64_t within(uint8_t low, uint8_t high, uint8_t set = 0) const {
        const __m256i span = _mm256_set1_epi8(high - low);
        return joined([&](__m256i half) {
            const __m256i shifted =
                _mm256_sub_epi8(_mm256_or_si256(half, _mm256_set1_epi8(set)), _mm256_set1_epi8(low));
            return _mm256_cmpeq_epi8(_mm256_max_epu8(shifted, span), span);
        });
    }

   private:
    template <class Compare>
    uint64_t joined(Compare compare) const {
        const auto bits = [&](int i) { return static_cast<uint32_t>(_mm256_movemask_epi8(compare(halves[i]))); };
        return bits(0) | static_cast<uint64_t>(bits(1)) << 32;
    }
};

#else

struct Block {
    unsigned char bytes[64];

    explicit Block(const char* text) { std::memcpy(bytes, text, 64); }
    uint64_t equal(char c) const {
        return joined([=](unsigned char byte) { return byte == static_cast<unsigned char>(c); });
    }
    uint64_t not_ascii() const {
        return joined([](unsigned char byte) { return byte >= 0x80; });
    }
    uint64_t within(uint8_t low, uint8_t high, uint8_t set = 0) const {
        return joined([=](unsigned char byte) { return static_cast<uint8_t>((byte | set) - low) <= high - low; });
    }

   private:
    template <class Compare>
    uint64_t joined(Compare compare) const {
        unsigned char found[64];  // a loop that compilers turn into vectors
        for (int i = 0; i < 64; ++i) found[i] = compare(bytes[i]);
        uint64_t bits = 0;
        for (int i = 0; i < 8; ++i) {  // eight bytes of 0 or 1 to eight bits, the first byte lowest
            uint64_t word = 0;
            for (int j = 0; j < 8; ++j) word |= static_cast<uint64_t>(found[8 * i + j]) << 8 * j;
            bits |= (word * 0x0102040810204080u >> 56) << 8 * i;
        }
        return bits;
    }
};

#endif

}  // namespace bpe

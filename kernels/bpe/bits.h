// The bits that pretokenizer.h computes with: one for each byte of a window.
#pragma once
#include <cstddef>
#include <cstdint>
#include "bpe/limits.h"

namespace bpe {

constexpr size_t LOOKAHEAD_BYTES = 64;  // classified too, because rules need the bytes after the window

// A bit for each byte; a zero word before and after, so that shifts may read there.
struct Bits {
    static constexpr size_t WORDS = (WINDOW_BYTES + LOOKAHEAD_BYTES) / 64;
    uint64_t words[WORDS + 2] = {};

    uint64_t& operator[](size_t word) { return words[word + 1]; }
    uint64_t previous(size_t word) const { return words[word + 1] << 1 | words[word] >> 63; }
    uint64_t next(size_t word) const { return words[word + 1] >> 1 | words[word + 2] << 63; }
    bool get(size_t at) const { return words[at / 64 + 1] >> (at % 64) & 1; }
    void set(size_t at) { words[at / 64 + 1] |= uint64_t{1} << (at % 64); }
    void clear(size_t at) { words[at / 64 + 1] &= ~(uint64_t{1} << (at % 64)); }

    template <class Body>
    void for_each(size_t word, Body body) {
        for (uint64_t left = words[word + 1]; left; left &= left - 1) body(64 * word + __builtin_ctzll(left));
    }
};

}  // namespace bpe

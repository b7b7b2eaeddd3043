// Tokens by number: 0 to 255 for the bytes, then one for each merge.
#pragma once
#include <cstdint>

namespace bpe {

constexpr uint32_t BYTES = 256;
constexpr uint32_t NONE = UINT32_MAX;  // not a token

// A pair of tokens as one number, ordered as (left, right) is.
inline uint64_t pair_key(uint32_t left, uint32_t right) { return static_cast<uint64_t>(left) << 32 | right; }

}  // namespace bpe

// Ids to bytes. Most tokens are short, so 16 bytes are copied for each, which takes no branch on its size.
#pragma once
#include <cstdint>
#include <cstring>
#include "bpe/huge_pages.h"

namespace bpe {

class Decoder {
   public:
    // Token i is bytes[offsets[i]] up to bytes[offsets[i + 1]], i < count.
    Decoder(const char* bytes, const int64_t* offsets, size_t count)
        : begins_(count), bytes_(bytes, bytes + offsets[count]) {
        for (size_t i = 0; i < count; ++i)
            begins_[i] = {static_cast<uint32_t>(offsets[i]), static_cast<uint32_t>(offsets[i + 1] - offsets[i])};
        bytes_.resize(bytes_.size() + AT_ONCE);
    }

    // The number of bytes that the ids stand for, -1 if one of them is not a token's.
    int64_t size(const uint32_t* ids, size_t count) const {
        int64_t sum = 0;
        for (size_t i = 0; i < count; ++i) {
            if (ids[i] >= begins_.size()) return -1;
            sum += begins_[ids[i]].size;
        }
        return sum;
    }

    // Fills text; size: what `size` returned for these ids.
    void decode(const uint32_t* ids, size_t count, char* text, int64_t size) const {
        int64_t at = 0;
        for (size_t i = 0; i < count; ++i) {
            const Token token = begins_[ids[i]];
            const char* const bytes = &bytes_[token.begin];
            if (token.size <= AT_ONCE && at + AT_ONCE <= size)
                std::memcpy(text + at, bytes, AT_ONCE);
            else
                std::memcpy(text + at, bytes, token.size);
            at += token.size;
        }
    }

   private:
    static constexpr int64_t AT_ONCE = 16;
    struct Token {
        uint32_t begin, size;
    };
    Table<Token> begins_;
    Table<char> bytes_;
};

}  // namespace bpe

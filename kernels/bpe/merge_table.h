// The token that merging two tokens makes: a hash table with few cache misses and no unpredictable branch.
//
// A merge takes eight bytes, and a bucket of eight merges is a cache line. A tag of 32 bits and the number of its bucket
// tell a pair of tokens exactly: the bucket is right ^ hash(left), and the tag holds left, those bits of right that are
// above the bucket's number, and how many full buckets the merge had to pass.
#pragma once
#include <cstring>
#include <stdexcept>
#include "bpe/huge_pages.h"
#include "bpe/tokens.h"
#include "bpe/word_key.h"

namespace bpe {

class MergeTable {
   public:
    // most: the number of merges. Their tokens are below BYTES + most.
    explicit MergeTable(size_t most) {
        if (BYTES + most >= size_t{1} << LEFT_BITS) throw std::length_error("2^24 tokens or more");
        while (SLOTS << bucket_bits_ < 2 * most) ++bucket_bits_;
        buckets_ = Table<Bucket>(size_t{1} << bucket_bits_);
    }

    // The token that merging left and right makes, NONE if they do not merge. Both are at most BYTES + most.
    uint32_t find(uint32_t left, uint32_t right) const {
        for (uint32_t passed = 0; passed < 1 << PASSED_BITS; ++passed) {
            const Bucket& bucket = buckets_[bucket_at(left, right, passed)];
            const Eight others = reinterpret_cast<Eight>(bucket.tags != tag(left, right, passed));  // ones or zeros
            const uint32_t found = common_bits(bucket.tokens | others);
            if ((found != NONE) | (bucket.tokens[SLOTS - 1] == NONE)) return found;
        }
        return NONE;
    }

    void add(uint32_t left, uint32_t right, uint32_t token) {
        for (uint32_t passed = 0; passed < 1 << PASSED_BITS; ++passed) {
            Bucket& bucket = buckets_[bucket_at(left, right, passed)];
            for (size_t i = 0; i < SLOTS; ++i) {
                if (bucket.tokens[i] != NONE) continue;
                bucket.tags[i] = tag(left, right, passed);
                bucket.tokens[i] = token;
                return;
            }
        }
        throw std::length_error("too many merges of the same hash");
    }

   private:
    static constexpr size_t SLOTS = 8;  // of a bucket, filled from the front; at most half of all slots are filled
    static constexpr int LEFT_BITS = 24, RIGHT_BITS = 3, PASSED_BITS = 5;
    static_assert(LEFT_BITS + RIGHT_BITS + PASSED_BITS == 32, "a tag has 32 bits");
    typedef uint32_t Eight __attribute__((vector_size(4 * SLOTS)));
    struct alignas(64) Bucket {
        Eight tags = {}, tokens = ~Eight{};  // no token: NONE
    };

    size_t bucket_at(uint32_t left, uint32_t right, uint32_t passed) const {
        return ((right ^ mixed(left)) + passed) & (buckets_.size() - 1);
    }
    // right < 2^(bucket_bits_ + RIGHT_BITS), because there are at least most / 4 buckets, and 256.
    uint32_t tag(uint32_t left, uint32_t right, uint32_t passed) const {
        return left | right >> bucket_bits_ << LEFT_BITS | passed << (LEFT_BITS + RIGHT_BITS);
    }
    static uint32_t common_bits(const Eight& numbers) {
        uint64_t pairs[SLOTS / 2], common = ~uint64_t{0};
        std::memcpy(pairs, &numbers, sizeof pairs);
        for (const uint64_t pair : pairs) common &= pair;
        return static_cast<uint32_t>(common & common >> 32);
    }

    int bucket_bits_ = 8;
    Table<Bucket> buckets_;
};

}  // namespace bpe

// The token that merging two tokens makes: a hash table with few cache misses and no unpredictable branch.
#pragma once
#include <algorithm>
#include "bpe/huge_pages.h"
#include "bpe/tokens.h"
#include "bpe/word_key.h"

namespace bpe {

class MergeTable {
   public:
    explicit MergeTable(size_t most) {
        size_t buckets = 256;
        while (2 * buckets < most) buckets *= 2;
        buckets_ = Table<Bucket>(buckets);
    }

    // The token that merging left and right makes, NONE if they do not merge.
    uint32_t find(uint32_t left, uint32_t right) const {
        const uint64_t key = pair_key(left, right);
        for (size_t at = mixed(key);; ++at) {
            const Bucket& bucket = buckets_[at & (buckets_.size() - 1)];
            uint32_t found = NONE;
            for (size_t i = 0; i < SLOTS; ++i) found &= bucket.tokens[i] | -uint32_t{bucket.keys[i] != key};
            if (found != NONE || bucket.tokens[SLOTS - 1] == NONE) return found;
        }
    }

    void add(uint32_t left, uint32_t right, uint32_t token) {
        const uint64_t key = pair_key(left, right);
        for (size_t at = mixed(key);; ++at) {
            Bucket& bucket = buckets_[at & (buckets_.size() - 1)];
            uint32_t* const slot = std::find(bucket.tokens, bucket.tokens + SLOTS, NONE);
            if (slot == bucket.tokens + SLOTS) continue;
            *slot = token;
            bucket.keys[slot - bucket.tokens] = key;
            return;
        }
    }

   private:
    static constexpr size_t SLOTS = 4;  // of a bucket, filled from the front; at most half of all slots are filled
    struct alignas(64) Bucket {
        uint64_t keys[SLOTS] = {};
        uint32_t tokens[SLOTS] = {NONE, NONE, NONE, NONE};
    };

    Table<Bucket> buckets_;
};

}  // namespace bpe

// What merging two tokens makes: a hash table for few cache misses and no branch that is guessed wrong.
#pragma once
#include <algorithm>
#include "bpe/huge_pages.h"
#include "bpe/trainer.h"

namespace bpe {

class MergeTable {
public:
    explicit MergeTable(size_t most) {
        size_t buckets = 256;
        while (2 * buckets < most) buckets *= 2;
        buckets_ = Table<Bucket>(buckets);
    }

    // The token that merging left and right makes, NONE if it makes none.
    uint32_t find(uint32_t left, uint32_t right) const {
        const uint64_t key = pair_key(left, right);
        for (size_t at = mixed(key);; ++at) {
            const Bucket& bucket = buckets_[at & (buckets_.size() - 1)];
            uint32_t found = NONE;
            for (size_t i = 0; i < PLACES; ++i) found &= bucket.keys[i] == key ? bucket.tokens[i] : NONE;
            if (found != NONE || bucket.tokens[PLACES - 1] == NONE) return found;
        }
    }

    void add(uint32_t left, uint32_t right, uint32_t token) {
        const uint64_t key = pair_key(left, right);
        for (size_t at = mixed(key);; ++at) {
            Bucket& bucket = buckets_[at & (buckets_.size() - 1)];
            uint32_t* const place = std::find(bucket.tokens, bucket.tokens + PLACES, NONE);
            if (place == bucket.tokens + PLACES) continue;
            *place = token;
            bucket.keys[place - bucket.tokens] = key;
            return;
        }
    }

private:
    static constexpr size_t PLACES = 4;  // at most half of all are taken, from the front of a bucket
    struct alignas(64) Bucket {
        uint64_t keys[PLACES] = {};
        uint32_t tokens[PLACES] = {NONE, NONE, NONE, NONE};
    };

    Table<Bucket> buckets_;
};

}  // namespace bpe

// What encoding has learnt: the ids of words. It grows with the distinct words up to a bound, then starts anew.
#pragma once
#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>
#include "pages.h"
#include "words.h"

namespace bpe {

constexpr uint32_t ID_LIMIT = 1 << 24;  // ids are below: an entry keeps their number in the bits above

class WordCache {
public:
    using ShortKey = Key<2>;
    static constexpr size_t LONGEST_WORD = 256;
    static constexpr size_t IDS_AT_ONCE = 4;  // so many are written at a time, meant or not

    void prefetch(uint64_t hash) const { __builtin_prefetch(&short_[hash & (short_.size() - 1)]); }

    // Both write the word's ids and return the end of them, null if the word is new.
    uint32_t* find_short(const ShortKey& key, uint64_t hash, uint32_t* out) const {
        for (size_t at = hash;; ++at) {
            const Short& entry = short_[at & (short_.size() - 1)];
            if (entry.key == key) {
                uint32_t ids[IDS_AT_ONCE];
                std::memcpy(ids, entry.ids, sizeof ids);
                const uint32_t count = ids[3] >> 24;
                if (count > IDS_AT_ONCE) return std::copy_n(&spilled_[ids[0]], ids[1], out);
                ids[3] &= ID_LIMIT - 1;
                std::memcpy(out, ids, sizeof ids);
                return out + count;
            }
            if (entry.key.size() == 0) return nullptr;
        }
    }

    uint32_t* find_long(std::string_view word, uint64_t hash, uint32_t* out) const {
        for (size_t at = hash;; ++at) {
            const Long& entry = long_[at & (long_.size() - 1)];
            if (entry.size == 0) return nullptr;
            if (entry.hash != static_cast<uint32_t>(hash >> 32) || entry.size != word.size()) continue;
            if (std::memcmp(&bytes_[entry.begin], word.data(), word.size()) == 0) return std::copy_n(&spilled_[entry.ids], entry.count, out);
        }
    }

    void add_short(const ShortKey& key, uint64_t hash, const uint32_t* ids, size_t count) {
        make_room();
        if (3 * ++shorts_ > 2 * short_.size()) grow();
        Short entry{key, {}};
        if (count <= IDS_AT_ONCE) std::copy_n(ids, count, entry.ids);
        else entry.ids[0] = spill(ids, count), entry.ids[1] = static_cast<uint32_t>(count);
        entry.ids[3] |= static_cast<uint32_t>(std::min(count, IDS_AT_ONCE + 1)) << 24;
        short_[free_slot(short_, hash)] = entry;
    }

    void add_long(std::string_view word, uint64_t hash, const uint32_t* ids, size_t count) {
        make_room();
        if (3 * ++longs_ > 2 * long_.size()) grow_long();
        const uint32_t begin = static_cast<uint32_t>(bytes_.size());
        bytes_.insert(bytes_.end(), word.begin(), word.end());
        const uint32_t size = static_cast<uint32_t>(word.size()), first = spill(ids, count);
        long_[free_slot(long_, hash)] = {static_cast<uint32_t>(hash >> 32), begin, first, static_cast<uint16_t>(size), static_cast<uint16_t>(count)};
    }

private:
    static constexpr size_t FIRST_SLOTS = 1 << 11, MOST_SHORTS = 1 << 20, MOST_BYTES = 16 << 20;  // at most about 90 MiB
    struct Short {
        ShortKey key;
        uint32_t ids[IDS_AT_ONCE];  // more of them are spilled: the first's index, their number
        bool used() const { return key.size() != 0; }
    };
    struct Long {
        uint32_t hash, begin, ids;
        uint16_t size, count;
        bool used() const { return size != 0; }
    };

    template <class Entry>
    static size_t free_slot(const Table<Entry>& entries, uint64_t hash) {
        size_t at = hash;
        while (entries[at & (entries.size() - 1)].used()) ++at;
        return at & (entries.size() - 1);
    }

    uint32_t spill(const uint32_t* ids, size_t count) {
        const uint32_t begin = static_cast<uint32_t>(spilled_.size());
        spilled_.insert(spilled_.end(), ids, ids + count);
        return begin;
    }

    void make_room() {
        if (shorts_ == MOST_SHORTS || bytes_.size() + 4 * spilled_.size() > MOST_BYTES) *this = WordCache();
    }

    void grow() {
        Table<Short> larger(4 * short_.size());
        for (const Short& entry : short_)
            if (entry.used()) larger[free_slot(larger, entry.key.hash())] = entry;
        short_.swap(larger);
    }

    void grow_long() {
        Table<Long> larger(4 * long_.size());
        for (const Long& entry : long_)
            if (entry.used()) larger[free_slot(larger, hash_bytes(&bytes_[entry.begin], entry.size))] = entry;
        long_.swap(larger);
    }

    Table<Short> short_ = Table<Short>(FIRST_SLOTS);
    Table<Long> long_ = Table<Long>(FIRST_SLOTS);
    std::vector<char> bytes_;         // of long words
    std::vector<uint32_t> spilled_;   // ids that have no room in an entry
    size_t shorts_ = 0, longs_ = 0;
};

}  // namespace bpe

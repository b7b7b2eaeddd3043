// What encoding has learnt: the ids of words. All threads share it, and none waits for another: an entry is read only
// once it is whole and never changes, and what cannot be remembered at once is found anew later.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>
#include "bpe/huge_pages.h"
#include "bpe/word_key.h"

namespace bpe {

constexpr uint32_t ID_LIMIT = 1 << 24;  // ids are below: an entry keeps their number in the bits above

// A word as the cache knows it. Up to 15 bytes are the key themselves; of a longer word it is the hash and the size.
struct WordKey {
    static constexpr uint64_t LONG = uint64_t{1} << 63;
    Key key;
    uint64_t hash;

    // Reads 16 bytes.
    static WordKey of_short(const char* word, size_t size) {
        const Key key(word, size);
        return {key, key.hash()};
    }
    static WordKey of_long(std::string_view word) {
        WordKey made;
        made.hash = made.key.numbers[0] = hash_bytes(word.data(), word.size());
        made.key.numbers[1] = LONG | static_cast<uint64_t>(word.size()) << 32;
        return made;
    }
    bool is_long() const { return key.numbers[1] & LONG; }
};

class WordCache {
public:
    static constexpr size_t LONGEST_WORD = 256;
    static constexpr size_t IDS_AT_ONCE = 4;  // so many are written at a time, meant or not

    WordCache() : WordCache(FIRST_SLOTS, std::make_shared<Store>()) {}

    void prefetch(uint64_t hash) const { __builtin_prefetch(&entries_[hash & last_]); }
    void prefetch_bytes(uint64_t hash) const {
        const uint64_t second = entries_[hash & last_].second.load(std::memory_order_acquire);
        __builtin_prefetch(store_->at(static_cast<uint32_t>(second)));
    }

    // Both write the word's ids and return the end of them, null if the word is new.
    uint32_t* find_short(const WordKey& word, uint32_t* out) const {
        for (size_t at = word.hash;; ++at) {
            const Entry& entry = entries_[at & last_];
            const uint64_t second = entry.second.load(std::memory_order_acquire);
            if (second == word.key.numbers[1] && entry.first == word.key.numbers[0]) return copy_ids(entry, out);
            if (second == EMPTY) return nullptr;
        }
    }
    uint32_t* find_long(const WordKey& word, std::string_view bytes, uint32_t* out) const {
        for (size_t at = word.hash;; ++at) {
            const Entry& entry = entries_[at & last_];
            const uint64_t second = entry.second.load(std::memory_order_acquire);
            if (second >> 32 == word.key.numbers[1] >> 32 && entry.first == word.key.numbers[0] &&
                std::memcmp(store_->at(static_cast<uint32_t>(second)), bytes.data(), bytes.size()) == 0)
                return copy_ids(entry, out);
            if (second == EMPTY) return nullptr;
        }
    }

    // Returns false, without remembering the word, if there is no room.
    bool add(const WordKey& word, std::string_view bytes, const uint32_t* ids, size_t count) {
        const size_t bytes_kept = word.is_long() ? bytes.size() : 0, ids_kept = count > IDS_AT_ONCE ? count : 0;
        if (words_.load(std::memory_order_relaxed) >= most_words()) return false;
        uint64_t second = word.key.numbers[1];
        uint32_t packed[IDS_AT_ONCE] = {};
        if (bytes_kept + ids_kept) {
            const uint32_t place = store_->take(bytes_kept, ids_kept);
            if (place == Store::NO_ROOM) return false;
            std::memcpy(store_->at(place), bytes.data(), bytes_kept);
            packed[0] = place + Store::units(bytes_kept);
            packed[1] = static_cast<uint32_t>(count);
            std::memcpy(store_->at(packed[0]), ids, 4 * ids_kept);
            if (bytes_kept) second |= place;
        }
        if (!ids_kept) std::copy_n(ids, count, packed), std::fill(packed + count, packed + IDS_AT_ONCE, 0);
        packed[3] |= static_cast<uint32_t>(std::min(count, IDS_AT_ONCE + 1)) << 24;
        put(word.hash, word.key.numbers[0], second, packed);
        return true;
    }

    // What follows when there is no room: one of more slots with the same words, or an empty one at the bounds.
    std::shared_ptr<WordCache> next() const {
        if (words_ < most_words() || most_words() == MOST_WORDS) return std::make_shared<WordCache>();
        std::shared_ptr<WordCache> larger(new WordCache(2 * entries_.size(), store_));
        for (const Entry& entry : entries_) {
            const uint64_t second = entry.second.load(std::memory_order_acquire);
            if (second == EMPTY || second == BEING_WRITTEN) continue;
            const uint64_t hash = second & WordKey::LONG ? entry.first : Key(entry.first, second).hash();
            larger->put(hash, entry.first, second, entry.ids);
        }
        return larger;
    }

private:
    static constexpr size_t FIRST_SLOTS = 1 << 15, MOST_WORDS = 1 << 20;
    static constexpr uint64_t EMPTY = 0, BEING_WRITTEN = 1;  // no key's second number: it has a size
    struct alignas(32) Entry {
        uint64_t first;
        std::atomic<uint64_t> second;  // written last; of a long word with its place in the store
        uint32_t ids[IDS_AT_ONCE];     // more of them are in the store: their place there, their number
    };

    // Bytes of long words and ids that have no room in an entry, in units of 4 bytes.
    struct Store {
        static constexpr uint32_t MOST_UNITS = 4 << 20, NO_ROOM = UINT32_MAX;

        static uint32_t units(size_t bytes) { return static_cast<uint32_t>((bytes + 3) / 4); }
        char* at(uint32_t place) const { return bytes.get() + 4 * static_cast<size_t>(place % MOST_UNITS); }
        uint32_t take(size_t text, size_t ids) {
            const uint32_t wanted = units(text) + static_cast<uint32_t>(ids), place = used.load(std::memory_order_relaxed);
            if (place + wanted > MOST_UNITS) return NO_ROOM;
            const uint32_t taken = used.fetch_add(wanted, std::memory_order_relaxed);
            return taken + wanted > MOST_UNITS ? NO_ROOM : taken;
        }

        std::unique_ptr<char[]> bytes{new char[4 * MOST_UNITS]};  // Linux gives the pages that are written
        std::atomic<uint32_t> used{0};
    };

    WordCache(size_t slots, std::shared_ptr<Store> store) : entries_(slots), last_(slots - 1), store_(std::move(store)) {}

    size_t most_words() const { return std::min(entries_.size() / 3 * 2, MOST_WORDS); }

    uint32_t* copy_ids(const Entry& entry, uint32_t* out) const {
        uint32_t ids[IDS_AT_ONCE];
        std::memcpy(ids, entry.ids, sizeof ids);
        const uint32_t count = ids[3] >> 24;
        if (count > IDS_AT_ONCE) {
            std::memcpy(out, store_->at(ids[0]), 4 * ids[1]);
            return out + ids[1];
        }
        ids[3] &= ID_LIMIT - 1;
        std::memcpy(out, ids, sizeof ids);
        return out + count;
    }

    // Two threads that learn one word at a time make two entries of it: the first is found.
    void put(uint64_t hash, uint64_t first, uint64_t second, const uint32_t* ids) {
        for (size_t at = hash;; ++at) {
            Entry& entry = entries_[at & last_];
            uint64_t expected = EMPTY;
            if (!entry.second.compare_exchange_strong(expected, BEING_WRITTEN, std::memory_order_relaxed)) continue;
            entry.first = first;
            std::copy_n(ids, IDS_AT_ONCE, entry.ids);
            entry.second.store(second, std::memory_order_release);
            words_.fetch_add(1, std::memory_order_relaxed);
            return;
        }
    }

    Table<Entry> entries_;
    size_t last_;
    std::shared_ptr<Store> store_;
    std::atomic<size_t> words_{0};
};

// The cache that threads use at present.
class SharedCache {
public:
    std::shared_ptr<WordCache> current() const { return std::atomic_load(&current_); }

    // Puts another in the place of one that is full, unless a thread has done so or is at it.
    void replace(const std::shared_ptr<WordCache>& full) {
        const std::unique_lock<std::mutex> lock(replacing_, std::try_to_lock);
        if (lock && current() == full) std::atomic_store(&current_, full->next());
    }

private:
    std::shared_ptr<WordCache> current_ = std::make_shared<WordCache>();
    std::mutex replacing_;
};

}  // namespace bpe

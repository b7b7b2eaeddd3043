// The ids of words that were encoded before. All threads share the cache, and none waits for another: an entry is read
// only once it is complete, and never changes. A word that cannot be added now is encoded again when it comes next.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string_view>
#include "bpe/huge_pages.h"
#include "bpe/limits.h"
#include "bpe/word_key.h"

namespace bpe {

// A word as the cache compares it. Up to 15 bytes are the key itself; the key of a longer word is its hash and size.
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
    static constexpr size_t IDS_AT_ONCE = SPARE_IDS;  // always written together, which takes no branch on their number

    WordCache() : WordCache(FIRST_SLOTS, std::make_shared<Store>()) {}

    void prefetch(uint64_t hash) const { __builtin_prefetch(&entries_[hash & last_]); }
    void prefetch_bytes(uint64_t hash) const {
        const uint64_t second = entries_[hash & last_].second.load(std::memory_order_acquire);
        __builtin_prefetch(store_->at(static_cast<uint32_t>(second)));
    }

    // Both write the word's ids and return their end, or null if the word is new.
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

    // Adds a word; returns false if there is no room.
    bool add(const WordKey& word, std::string_view bytes, const uint32_t* ids, size_t count) {
        const size_t stored_bytes = word.is_long() ? bytes.size() : 0, stored_ids = count > IDS_AT_ONCE ? count : 0;
        if (words_.load(std::memory_order_relaxed) >= most_words()) return false;
        uint64_t second = word.key.numbers[1];
        uint32_t packed[IDS_AT_ONCE] = {};
        if (stored_bytes + stored_ids) {
            const uint32_t address = store_->take(stored_bytes, stored_ids);
            if (address == Store::NO_ROOM) return false;
            std::memcpy(store_->at(address), bytes.data(), stored_bytes);
            packed[0] = address + Store::units(stored_bytes);
            packed[1] = static_cast<uint32_t>(count);
            std::memcpy(store_->at(packed[0]), ids, 4 * stored_ids);
            if (stored_bytes) second |= address;
        }
        if (!stored_ids) std::copy_n(ids, count, packed), std::fill(packed + count, packed + IDS_AT_ONCE, 0);
        packed[3] |= static_cast<uint32_t>(std::min(count, IDS_AT_ONCE + 1)) << 24;
        put(word.hash, word.key.numbers[0], second, packed);
        return true;
    }

    // The cache to use when this one is full: twice as large with the same words, or empty if it may not grow.
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
    static constexpr uint64_t EMPTY = 0, BEING_WRITTEN = 1;  // differ from any key's second number, which has a size
    struct alignas(32) Entry {
        uint64_t first;
        std::atomic<uint64_t> second;  // written last; a long word's includes its address in the store
        uint32_t ids[IDS_AT_ONCE];     // the ids; if there are more, their address in the store and their number
    };

    // The bytes of long words, and ids that do not fit an entry, in units of 4 bytes. An address counts units.
    struct Store {
        static constexpr uint32_t MOST_UNITS = 4 << 20, NO_ROOM = UINT32_MAX;

        static uint32_t units(size_t bytes) { return static_cast<uint32_t>((bytes + 3) / 4); }
        char* at(uint32_t address) const { return bytes.get() + 4 * static_cast<size_t>(address % MOST_UNITS); }
        uint32_t take(size_t text_bytes, size_t ids) {
            const uint32_t size = units(text_bytes) + static_cast<uint32_t>(ids);
            if (used.load(std::memory_order_relaxed) + size > MOST_UNITS) return NO_ROOM;
            const uint32_t address = used.fetch_add(size, std::memory_order_relaxed);
            return address + size > MOST_UNITS ? NO_ROOM : address;
        }

        std::unique_ptr<char[]> bytes{new char[4 * MOST_UNITS]};  // Linux provides only the pages that are written
        std::atomic<uint32_t> used{0};
    };

    WordCache(size_t slots, std::shared_ptr<Store> store)
        : entries_(slots), last_(slots - 1), store_(std::move(store)) {}

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

    // Two threads that add the same word at the same time make two entries; the first one is found.
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

// The cache that threads use now.
class SharedCache {
   public:
    std::shared_ptr<WordCache> current() const { return std::atomic_load(&current_); }

    // Replaces a full cache by the next one, unless another thread has done so or is doing it.
    void replace(const std::shared_ptr<WordCache>& full) {
        const std::unique_lock<std::mutex> lock(replacing_, std::try_to_lock);
        if (lock && current() == full) std::atomic_store(&current_, full->next());
    }

   private:
    std::shared_ptr<WordCache> current_ = std::make_shared<WordCache>();
    std::mutex replacing_;
};

}  // namespace bpe

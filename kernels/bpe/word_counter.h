// Counts words: the distinct pieces of texts. Each thread has a counter of its own; `add_all` joins them.
#pragma once
#include <memory>
#include <string_view>
#include <vector>
#include "bpe/huge_pages.h"
#include "bpe/pretokenizer.h"
#include "bpe/word_key.h"

namespace bpe {

class WordCounter {
   public:
    void add_text(std::string_view text, const Pattern& pattern, const uint8_t* classes) {
        if (!window_ || !same(pattern, classes)) window_ = std::make_unique<Window>(pattern, classes);
        pattern_ = pattern, classes_ = classes;
        for_pieces(text, *window_, pattern, classes, [&](const char* bytes, const uint32_t* starts, size_t count) {
            for (size_t begin = 0; begin < count; begin += BATCH)
                add_batch(bytes, starts + begin, std::min(BATCH, count - begin));
        });
    }

    void add_all(const WordCounter& other) {
        other.for_words([&](const char* word, size_t size, int64_t count) { add(word, size, count); });
    }

    // Calls body(word, size, count) for each distinct word.
    template <class Body>
    void for_words(Body body) const {
        for (const Short& entry : short_)
            if (entry.count) body(reinterpret_cast<const char*>(entry.key.numbers), entry.key.size(), entry.count);
        for (const Long& entry : long_)
            if (entry.count) body(&long_bytes_[entry.begin], entry.size, entry.count);
    }

    size_t distinct() const { return short_words_ + long_words_; }

   private:
    static constexpr size_t BATCH = 64, FIRST_SLOTS = 1 << 12;
    struct Short {
        Key key;
        int64_t count;
    };
    struct Long {
        uint64_t hash, begin, size;
        int64_t count;
    };

    bool same(const Pattern& pattern, const uint8_t* classes) const {
        return pattern_ == pattern && classes_ == classes;
    }

    // All slots of a batch are prefetched before the first is read, because they are seldom in a cache.
    void add_batch(const char* bytes, const uint32_t* starts, size_t count) {
        Key keys[BATCH];
        uint64_t hashes[BATCH];
        for (size_t i = 0; i < count; ++i) {
            const size_t size = starts[i + 1] - starts[i];
            if (size > Key::MOST_BYTES) continue;
            keys[i] = Key(bytes + starts[i], size);
            hashes[i] = keys[i].hash();
            __builtin_prefetch(&short_[hashes[i] & (short_.size() - 1)]);
        }
        for (size_t i = 0; i < count; ++i) {
            const size_t size = starts[i + 1] - starts[i];
            if (size <= Key::MOST_BYTES)
                add_short(keys[i], hashes[i], 1);
            else
                add_long(bytes + starts[i], size, 1);
        }
    }

    void add(const char* word, size_t size, int64_t count) {
        if (size > Key::MOST_BYTES) return add_long(word, size, count);
        char padded[sizeof(Key)] = {};
        std::memcpy(padded, word, size);
        const Key key(padded, size);
        add_short(key, key.hash(), count);
    }

    void add_short(const Key& key, uint64_t hash, int64_t count) {
        for (size_t at = hash;; ++at) {
            Short& entry = short_[at & (short_.size() - 1)];
            if (entry.count && !(entry.key == key)) continue;
            const bool is_new = entry.count == 0;
            entry.key = key;
            entry.count += count;
            if (is_new && ++short_words_ * 3 > short_.size() * 2)
                grow(short_, [](const Short& one) { return one.key.hash(); });
            return;
        }
    }

    void add_long(const char* word, size_t size, int64_t count) {
        const uint64_t hash = hash_bytes(word, size);
        for (size_t at = hash;; ++at) {
            Long& entry = long_[at & (long_.size() - 1)];
            const bool is_new = entry.count == 0;
            if (!is_new &&
                (entry.hash != hash || entry.size != size || std::memcmp(&long_bytes_[entry.begin], word, size)))
                continue;
            if (is_new) {
                entry = {hash, long_bytes_.size(), size, 0};
                long_bytes_.insert(long_bytes_.end(), word, word + size);
            }
            entry.count += count;
            if (is_new && ++long_words_ * 3 > long_.size() * 2) grow(long_, [](const Long& one) { return one.hash; });
            return;
        }
    }

    template <class Entry, class Hash>
    static void grow(Table<Entry>& entries, Hash hash) {
        Table<Entry> larger(2 * entries.size());
        for (const Entry& entry : entries) {
            if (!entry.count) continue;
            size_t at = hash(entry);
            while (larger[at & (larger.size() - 1)].count) ++at;
            larger[at & (larger.size() - 1)] = entry;
        }
        entries.swap(larger);
    }

    Table<Short> short_ = Table<Short>(FIRST_SLOTS);
    Table<Long> long_ = Table<Long>(FIRST_SLOTS);
    Table<char> long_bytes_;
    size_t short_words_ = 0, long_words_ = 0;
    Pattern pattern_{};
    const uint8_t* classes_ = nullptr;
    std::unique_ptr<Window> window_;
};

}  // namespace bpe

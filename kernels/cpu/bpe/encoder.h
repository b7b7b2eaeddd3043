// Encoding texts: pieces to ids, most of them from a cache of words. A Tokens object is shared by all threads, an
// Encoder is one thread's.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>
#include "vocabulary.h"

namespace bpe {

constexpr uint32_t ID_LIMIT = 1 << 24;  // ids are below; a cache entry keeps their number in the bits above

// The ids of words of up to 8 * NUMBERS - 1 bytes and 2 * NUMBERS tokens. A word has two places, and a new one moves
// the newer of those there to the older one's place; so memory is bounded, and frequent words stay.
template <size_t NUMBERS>
class WordCache {
public:
    using WordKey = Key<NUMBERS>;
    static constexpr size_t IDS = 2 * NUMBERS;

    explicit WordCache(size_t most_entries) : most_sets_(most_entries / 2) {}

    void prefetch(uint64_t hash) const { __builtin_prefetch(&sets_[hash & (sets_.size() - 1)]); }

    // Writes the word's ids and returns the end of them, null if the cache does not have it. IDS ids are written over.
    uint32_t* find(const WordKey& key, uint64_t hash, uint32_t* out) const {
        const Set& set = sets_[hash & (sets_.size() - 1)];
        const Entry& entry = set.entries[!(set.entries[0].key == key)];
        if (!(entry.key == key)) return nullptr;
        uint32_t ids[IDS];
        std::memcpy(ids, entry.ids, sizeof ids);
        const uint32_t count = ids[IDS - 1] >> 24;
        ids[IDS - 1] &= ID_LIMIT - 1;
        std::memcpy(out, ids, sizeof ids);
        return out + count;
    }

    void add(const WordKey& key, uint64_t hash, const uint32_t* ids, size_t count) {
        if (++added_ > sets_.size() && sets_.size() < most_sets_) grow(), added_ = 0;
        Entry entry{key, {}};
        std::copy_n(ids, count, entry.ids);
        entry.ids[IDS - 1] |= static_cast<uint32_t>(count) << 24;
        insert(sets_, entry, hash);
    }

private:
    struct Entry {
        WordKey key;
        uint32_t ids[IDS];
    };
    struct alignas(2 * sizeof(Entry)) Set {
        Entry entries[2] = {};
    };

    static void insert(std::vector<Set>& sets, const Entry& entry, uint64_t hash) {
        Set& set = sets[hash & (sets.size() - 1)];
        set.entries[1] = set.entries[0];
        set.entries[0] = entry;
    }

    void grow() {
        std::vector<Set> larger(4 * sets_.size());
        for (const Set& set : sets_)
            for (int i = 1; i >= 0; --i)
                if (set.entries[i].key.size()) insert(larger, set.entries[i], set.entries[i].key.hash());
        sets_.swap(larger);
    }

    size_t most_sets_;
    size_t added_ = 0;
    std::vector<Set> sets_ = std::vector<Set>(1 << 10);
};

// A tokenizer's tables: the vocabulary, each token's id, and the literals that are tokens by themselves.
struct Tokens {
    Vocabulary vocabulary;
    std::vector<uint32_t> ids;  // by token
    Pattern pattern;
    std::unordered_map<std::string, uint32_t> whole;  // pieces with an id of their own, whatever the merges say
    std::unordered_map<std::string, uint32_t> specials;
    std::vector<size_t> special_sizes;  // longest first
    bool special_begins[256] = {};
    char one_begin = 0;  // the byte that all of them begin with, if there is one
};

class Encoder {
public:
    explicit Encoder(const Tokens& tokens) : tokens_(tokens) {}

    // Writes at most text.size() ids, and may overwrite SPARE_IDS more; returns how many.
    static constexpr size_t SPARE_IDS = 8;
    size_t encode(std::string_view text, const uint8_t* classes, uint32_t* ids) {
        if (!window_ || classes != classes_) window_ = std::make_unique<Window>(tokens_.pattern, classes_ = classes);
        uint32_t* end = ids;
        while (!text.empty()) {
            const Special special = next_special(text);
            for_pieces(text.substr(0, special.begin), *window_, tokens_.pattern, classes,
                       [&](const char* bytes, const uint32_t* starts, size_t count) {
                           for (size_t begin = 0; begin < count; begin += BATCH)
                               end = encode_batch(bytes, starts + begin, std::min(BATCH, count - begin), end);
                       });
            if (special.size) *end++ = special.id;
            text.remove_prefix(special.begin + special.size);
        }
        return end - ids;
    }

private:
    static constexpr size_t BATCH = 64;
    using ShortKey = Key<2>;
    using MediumKey = Key<4>;
    struct Special {
        size_t begin, size;
        uint32_t id;
    };

    // The first special token in the text, of several at one place the longest; size 0 at the text's end if none is.
    Special next_special(std::string_view text) {
        if (tokens_.special_sizes.empty()) return {text.size(), 0, 0};
        for (size_t at = 0; (at = next_begin(text, at)) < text.size(); ++at)
            for (const size_t size : tokens_.special_sizes) {
                if (size > text.size() - at) continue;
                special_.assign(text.data() + at, size);
                const auto found = tokens_.specials.find(special_);
                if (found != tokens_.specials.end()) return {at, size, found->second};
            }
        return {text.size(), 0, 0};
    }

    size_t next_begin(std::string_view text, size_t at) const {
        if (tokens_.one_begin) {
            const void* const found = std::memchr(text.data() + at, tokens_.one_begin, text.size() - at);
            return found ? static_cast<const char*>(found) - text.data() : text.size();
        }
        while (at < text.size() && !tokens_.special_begins[static_cast<unsigned char>(text[at])]) ++at;
        return at;
    }

    // All places in the cache are asked for before the first is looked at.
    uint32_t* encode_batch(const char* bytes, const uint32_t* starts, size_t count, uint32_t* out) {
        ShortKey keys[BATCH];
        uint64_t hashes[BATCH];
        for (size_t i = 0; i < count; ++i) {
            const size_t size = starts[i + 1] - starts[i];
            keys[i] = ShortKey(bytes + starts[i], std::min(size, ShortKey::MOST_BYTES));
            hashes[i] = keys[i].hash();
            short_.prefetch(hashes[i]);
        }
        for (size_t i = 0; i < count; ++i) {
            const std::string_view word(bytes + starts[i], starts[i + 1] - starts[i]);
            if (word.size() <= ShortKey::MOST_BYTES) out = encode_word(short_, keys[i], hashes[i], word, out);
            else if (word.size() <= MediumKey::MOST_BYTES) {
                const MediumKey key(word.data(), word.size());
                out = encode_word(medium_, key, key.hash(), word, out);
            } else out = merge(word, out);
        }
        return out;
    }

    template <class Cache>
    uint32_t* encode_word(Cache& cache, const typename Cache::WordKey& key, uint64_t hash, std::string_view word, uint32_t* out) {
        if (uint32_t* const end = cache.find(key, hash, out)) return end;
        uint32_t* const end = merge(word, out);
        if (static_cast<size_t>(end - out) <= Cache::IDS) cache.add(key, hash, out, end - out);
        return end;
    }

    uint32_t* merge(std::string_view word, uint32_t* out) {
        if (!tokens_.whole.empty()) {
            const auto found = tokens_.whole.find(std::string(word));
            if (found != tokens_.whole.end()) {
                *out = found->second;
                return out + 1;
            }
        }
        tokens_.vocabulary.encode(word, work_);
        for (const uint32_t token : work_.tokens) *out++ = tokens_.ids[token];
        return out;
    }

    const Tokens& tokens_;
    const uint8_t* classes_ = nullptr;
    std::unique_ptr<Window> window_;
    WordCache<2> short_{1 << 20};   // 32 MiB
    WordCache<4> medium_{1 << 17};  // 8 MiB
    Vocabulary::Work work_;
    std::string special_;
};

}  // namespace bpe

// Encoding texts: pieces to ids, most of them from a cache of words. A Tokens object is shared by all threads, an
// Encoder is one thread's.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>
#include "cache.h"
#include "vocabulary.h"

namespace bpe {

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
    static constexpr size_t SPARE_IDS = WordCache::IDS_AT_ONCE;
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
    using ShortKey = WordCache::ShortKey;
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
            cache_.prefetch(hashes[i]);
        }
        for (size_t i = 0; i < count; ++i) {
            const std::string_view word(bytes + starts[i], starts[i + 1] - starts[i]);
            out = word.size() <= ShortKey::MOST_BYTES ? encode_short(keys[i], hashes[i], word, out) : encode_long(word, out);
        }
        return out;
    }

    uint32_t* encode_short(const ShortKey& key, uint64_t hash, std::string_view word, uint32_t* out) {
        if (uint32_t* const end = cache_.find_short(key, hash, out)) return end;
        uint32_t* const end = merge(word, out);
        cache_.add_short(key, hash, out, end - out);
        return end;
    }

    uint32_t* encode_long(std::string_view word, uint32_t* out) {
        if (word.size() > WordCache::LONGEST_WORD) return merge(word, out);
        const uint64_t hash = hash_bytes(word.data(), word.size());
        if (uint32_t* const end = cache_.find_long(word, hash, out)) return end;
        uint32_t* const end = merge(word, out);
        cache_.add_long(word, hash, out, end - out);
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
    WordCache cache_;
    Vocabulary::Work work_;
    std::string special_;
};

}  // namespace bpe

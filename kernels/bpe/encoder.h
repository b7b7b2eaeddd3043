// Encoding texts: pieces to ids, most of them from a cache of words. All threads share a Tokens object; each has an
// Encoder of its own.
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>
#include "bpe/limits.h"
#include "bpe/pretokenizer.h"
#include "bpe/vocabulary.h"
#include "bpe/word_cache.h"

namespace bpe {

// A tokenizer's tables: the vocabulary, each token's id, and the literals that are tokens by themselves.
struct Tokens {
    Tokens(Vocabulary vocabulary, Pattern pattern) : vocabulary(std::move(vocabulary)), pattern(pattern) {}

    Vocabulary vocabulary;
    Pattern pattern;
    std::vector<uint32_t> ids;                        // by token
    std::unordered_map<std::string, uint32_t> whole;  // pieces with an id of their own, regardless of merges
    std::unordered_map<std::string, uint32_t> specials;
    std::vector<size_t> special_sizes;  // longest first
    bool special_begins[256] = {};
    char one_begin = 0;  // the byte that all of them begin with, if they share one
    std::unique_ptr<SharedCache> cache = std::make_unique<SharedCache>();
};

class Encoder {
   public:
    explicit Encoder(const Tokens& tokens) : tokens_(tokens) {}

    // Writes at most text.size() ids, and may overwrite SPARE_IDS more; returns how many.
    size_t encode(std::string_view text, const uint8_t* classes, uint32_t* ids) {
        if (!window_ || classes != classes_) window_ = std::make_unique<Window>(tokens_.pattern, classes_ = classes);
        uint32_t* end = ids;
        cache_ = tokens_.cache->current();
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
    struct Special {
        size_t begin, size;
        uint32_t id;
    };

    // The first special token in the text, the longest if several begin there; the text's end with size 0 if none.
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

    // All slots of the cache are prefetched before the first is read, and then the bytes of long words.
    uint32_t* encode_batch(const char* bytes, const uint32_t* starts, size_t count, uint32_t* out) {
        WordKey keys[BATCH];
        uint64_t long_hashes[BATCH];
        size_t long_words = 0;
        for (size_t i = 0; i < count; ++i) {
            const size_t size = starts[i + 1] - starts[i];
            if (size <= Key::MOST_BYTES) {
                keys[i] = WordKey::of_short(bytes + starts[i], size);
            } else if (size <= WordCache::LONGEST_WORD) {
                keys[i] = WordKey::of_long({bytes + starts[i], size});
                long_hashes[long_words++] = keys[i].hash;
            } else {
                continue;
            }
            cache_->prefetch(keys[i].hash);
        }
        for (size_t i = 0; i < long_words; ++i) cache_->prefetch_bytes(long_hashes[i]);
        for (size_t i = 0; i < count; ++i) {
            const std::string_view piece(bytes + starts[i], starts[i + 1] - starts[i]);
            if (piece.size() > WordCache::LONGEST_WORD) {
                out = merge(piece, out);
                continue;
            }
            uint32_t* const end = piece.size() <= Key::MOST_BYTES ? cache_->find_short(keys[i], out)
                                                                  : cache_->find_long(keys[i], piece, out);
            out = end ? end : learn(keys[i], piece, out);
        }
        return out;
    }

    uint32_t* learn(const WordKey& key, std::string_view word, uint32_t* out) {
        uint32_t* const end = merge(word, out);
        if (!cache_->add(key, word, out, end - out)) {
            tokens_.cache->replace(cache_);
            cache_ = tokens_.cache->current();
            cache_->add(key, word, out, end - out);
        }
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
    std::shared_ptr<WordCache> cache_;
    Vocabulary::Work work_;
    std::string special_;
};

}  // namespace bpe

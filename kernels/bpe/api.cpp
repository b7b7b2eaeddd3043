// Byte-level BPE for Python: counting words, training merges, encoding, decoding. reference.py and pretokenize.py in
// hipgpt/data/tokenizer define them in plain Python, and tests compare the two. Texts are any bytes, valid UTF-8 or
// not.
//
// `classes` is pretokenize.class_table(): the class of each code point below CLASS_TABLE_SIZE. A text of ASCII only
// needs no table and may pass null. Every function that can fail returns -1 or null when memory runs out, or if numbers
// do not fit its tables.
//
// A text falls into pieces (pre-tokens); a word is a distinct piece.

#include <cstdint>
#include <string>
#include "bpe/decoder.h"
#include "bpe/encoder.h"
#include "bpe/trainer.h"
#include "bpe/word_counter.h"

namespace {

using namespace bpe;

constexpr std::string_view END_OF_TEXT = "<|endoftext|>";

std::string_view view(const char* text, int64_t size) { return {text, static_cast<size_t>(size)}; }

// `count` strings, their bytes one after another, with their sizes and ids.
struct Strings {
    const char* bytes;
    const int64_t* sizes;
    const uint32_t* ids;
    int64_t count;

    std::unordered_map<std::string, uint32_t> table() const {
        std::unordered_map<std::string, uint32_t> found;
        const char* next = bytes;
        for (int64_t i = 0; i < count; next += sizes[i++])
            found.emplace(std::string(next, static_cast<size_t>(sizes[i])), ids[i]);
        return found;
    }
};

void set_specials(Tokens& tokens, const Strings& specials) {
    tokens.specials = specials.table();
    for (const auto& [literal, id] : tokens.specials) {
        tokens.special_begins[static_cast<unsigned char>(literal[0])] = true;
        tokens.special_sizes.push_back(literal.size());
    }
    std::vector<size_t>& sizes = tokens.special_sizes;
    std::sort(sizes.begin(), sizes.end(), std::greater<>());
    sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
    if (std::count(std::begin(tokens.special_begins), std::end(tokens.special_begins), true) == 1)
        tokens.one_begin = tokens.specials.begin()->first[0];
}

template <class Body>
auto guarded(Body body, decltype(body()) failed) noexcept {
    try {
        return body();
    } catch (...) {  // no exception may cross into ctypes
        return failed;
    }
}

}  // namespace

extern "C" {

int64_t bpe_is_ascii(const char* text, int64_t size) {
    unsigned char any = 0;
    for (int64_t i = 0; i < size; ++i) any |= static_cast<unsigned char>(text[i]);
    return any < 0x80;
}

void* bpe_counter_new() {
    return guarded([] { return static_cast<void*>(new WordCounter); }, nullptr);
}

void bpe_counter_free(void* counter) { delete static_cast<WordCounter*>(counter); }

// Counts the words of one more text by the pattern PATTERNS[pattern], in which <|endoftext|> separates documents; returns the number of words so far.
int64_t bpe_counter_add(void* counter, const char* text, int64_t size, const uint8_t* classes, int64_t pattern) {
    return guarded(
        [&]() -> int64_t {
            auto& words = *static_cast<WordCounter*>(counter);
            for (std::string_view left = view(text, size); !left.empty();) {
                const std::string_view document = left.substr(0, left.find(END_OF_TEXT));
                words.add_text(document, PATTERNS[pattern], classes);
                left.remove_prefix(std::min(left.size(), document.size() + END_OF_TEXT.size()));
            }
            return static_cast<int64_t>(words.distinct());
        },
        -1);
}

// Adds the words of `other`, and empties it.
int64_t bpe_counter_join(void* counter, void* other) {
    return guarded(
        [&]() -> int64_t {
            static_cast<WordCounter*>(counter)->add_all(*static_cast<WordCounter*>(other));
            *static_cast<WordCounter*>(other) = WordCounter();
            return 0;
        },
        -1);
}

// A trainer takes over the words and leaves the counter empty.
void* bpe_trainer_new(void* counter) {
    return guarded([&] { return static_cast<void*>(new Trainer(std::move(*static_cast<WordCounter*>(counter)))); },
                   nullptr);
}

void bpe_trainer_free(void* trainer) { delete static_cast<Trainer*>(trainer); }

// merges (most, 24 bytes: left u32, right u32, count i64, applied i64): filled with the next merges; returns how many,
// fewer than `most` if no word has two tokens left.
int64_t bpe_trainer_train(void* trainer, int64_t most, void* merges) {
    return guarded(
        [&]() -> int64_t {
            auto& trained = *static_cast<Trainer*>(trainer);
            return static_cast<int64_t>(trained.train(static_cast<size_t>(most), static_cast<Merge*>(merges)));
        },
        -1);
}

// merges (count, 2), first to last; results (count): what they make. Both are names below 256 + count, the first 256
// for the bytes. fires (count): set to 1 for each merge that is ever applied, to 0 for the others.
int64_t bpe_fires(const uint32_t* merges, const uint32_t* results, int64_t count, uint8_t* fires) {
    return guarded(
        [&]() -> int64_t {
            const Vocabulary vocabulary(merges, static_cast<size_t>(count), results);
            for (int64_t i = 0; i < count; ++i) fires[i] = vocabulary.fires(BYTES + static_cast<uint32_t>(i));
            return 0;
        },
        -1);
}

// merges (count, 2), first to last; ids (256 + count): of the bytes, then of the merges. Then the pieces with an id of
// their own, and the special tokens: their bytes one after another, sizes, ids, and number.
void* bpe_tokens_new(const uint32_t* merges, int64_t count, const uint32_t* ids, int64_t pattern, const char* whole,
                     const int64_t* whole_sizes, const uint32_t* whole_ids, int64_t wholes, const char* special,
                     const int64_t* special_sizes, const uint32_t* special_ids, int64_t specials) {
    return guarded(
        [&]() -> void* {
            auto tokens = std::make_unique<Tokens>(Vocabulary(merges, static_cast<size_t>(count)), PATTERNS[pattern]);
            tokens->ids.assign(ids, ids + BYTES + count);
            tokens->whole = Strings{whole, whole_sizes, whole_ids, wholes}.table();
            set_specials(*tokens, {special, special_sizes, special_ids, specials});
            return tokens.release();
        },
        nullptr);
}

void bpe_tokens_free(void* tokens) { delete static_cast<Tokens*>(tokens); }

// The tokens must outlive the encoder. Only one thread may use an encoder at once.
void* bpe_encoder_new(const void* tokens) {
    return guarded([&] { return static_cast<void*>(new Encoder(*static_cast<const Tokens*>(tokens))); }, nullptr);
}

void bpe_encoder_free(void* encoder) { delete static_cast<Encoder*>(encoder); }

// texts, sizes (count): the addresses of the texts and their bytes. ids: room for one id per byte of all texts, and
// SPARE_IDS more; filled one text after another, text i from ends[i] to ends[i + 1]. Returns the number of ids.
int64_t bpe_encoder_encode(void* encoder, const char* const* texts, const int64_t* sizes, int64_t count,
                           const uint8_t* classes, uint32_t* ids, int64_t* ends) {
    return guarded(
        [&]() -> int64_t {
            ends[0] = 0;
            for (int64_t i = 0; i < count; ++i) {
                const size_t found =
                    static_cast<Encoder*>(encoder)->encode(view(texts[i], sizes[i]), classes, ids + ends[i]);
                ends[i + 1] = ends[i] + static_cast<int64_t>(found);
            }
            return ends[count];
        },
        -1);
}

// offsets (count + 1): of each token's bytes in `bytes`, and the end of the last.
void* bpe_decoder_new(const char* bytes, const int64_t* offsets, int64_t count) {
    return guarded([&] { return static_cast<void*>(new Decoder(bytes, offsets, static_cast<size_t>(count))); },
                   nullptr);
}

void bpe_decoder_free(void* decoder) { delete static_cast<Decoder*>(decoder); }

// The number of bytes that the ids stand for, -1 if one of them is not a token's.
int64_t bpe_decoder_size(const void* decoder, const uint32_t* ids, int64_t count) {
    return static_cast<const Decoder*>(decoder)->size(ids, static_cast<size_t>(count));
}

// text (size): what bpe_decoder_size returned for these ids.
void bpe_decoder_decode(const void* decoder, const uint32_t* ids, int64_t count, char* text, int64_t size) {
    static_cast<const Decoder*>(decoder)->decode(ids, static_cast<size_t>(count), text, size);
}

// starts (size + 1): filled with the start of each piece and the end of the text; returns how many. For tests: finds
// the pieces one by one, as symbols.h defines them, if `alone` is 1, and in windows, as encoding does, if it is 0.
int64_t bpe_pieces(const char* text, int64_t size, const uint8_t* classes, int64_t pattern, int64_t alone,
                   int64_t* starts) {
    return guarded(
        [&]() -> int64_t {
            const std::string_view all = view(text, size);
            const Pattern& kind = PATTERNS[pattern];
            int64_t count = 0, at = 0;
            starts[count++] = 0;
            if (alone) {
                while (at < size)
                    starts[count++] = at += static_cast<int64_t>(piece_end(all.substr(at), 0, classes, kind));
                return count;
            }
            Window window(kind, classes);
            for_pieces(all, window, kind, classes, [&](const char*, const uint32_t* found, size_t pieces) {
                for (size_t i = 0; i < pieces; ++i) starts[count++] = at += found[i + 1] - found[i];
            });
            return count;
        },
        -1);
}
}

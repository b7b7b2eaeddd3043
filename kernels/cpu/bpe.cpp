// Byte-level BPE: counting words, training merges, encoding. hipgpt/tokenizer/bpe.py and pretokenize.py define all
// three in plain Python; a test keeps this file equal to them. Texts are any bytes, valid UTF-8 or not.
//
// `classes` is pretokenize.class_table(): the class of each code point below CLASS_TABLE_SIZE. A text of ASCII alone
// needs none and may pass null. Every function that can fail returns -1 or null when memory runs out.

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <queue>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

// ---- Pre-tokenization: GPT-2's pattern, as a scanner over four classes of symbols.

enum Class : uint8_t { OTHER, LETTER, NUMBER, SPACE };
constexpr uint32_t CLASS_TABLE_SIZE = 0x40000;
constexpr std::string_view END_OF_TEXT = "<|endoftext|>";
constexpr std::string_view CONTRACTIONS[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};

constexpr std::array<uint8_t, 128> ascii_classes() {
    std::array<uint8_t, 128> table{};
    for (int c = 0; c < 128; ++c) {
        const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        const bool space = c == ' ' || (c >= '\t' && c <= '\r');
        table[c] = letter ? LETTER : c >= '0' && c <= '9' ? NUMBER : space ? SPACE : OTHER;
    }
    return table;
}
constexpr std::array<uint8_t, 128> ASCII = ascii_classes();

struct Symbol {
    uint8_t kind;
    uint8_t bytes;
};

// The symbol that begins at text[at]: one character, or one byte that no well-formed UTF-8 sequence begins with.
Symbol symbol_at(std::string_view text, size_t at, const uint8_t* classes) {
    constexpr uint32_t SMALLEST[] = {0, 0, 0x80, 0x800, 0x10000};  // of a sequence of so many bytes; less is overlong
    const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])); };
    const uint32_t lead = byte(0);
    if (lead < 0x80) return {ASCII[lead], 1};
    const uint8_t bytes = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF8 ? 4 : 1;
    if (bytes == 1 || bytes > text.size() - at) return {OTHER, 1};
    uint32_t code_point = lead & (0xFFu >> (bytes + 1));
    for (uint8_t i = 1; i < bytes; ++i) {
        if ((byte(i) & 0xC0) != 0x80) return {OTHER, 1};
        code_point = code_point << 6 | (byte(i) & 0x3F);
    }
    if (code_point < SMALLEST[bytes]) return {OTHER, 1};
    // Surrogates and what lies above U+10FFFF are ill-formed too, but OTHER either way: the pieces are the same.
    return {code_point < CLASS_TABLE_SIZE ? classes[code_point] : static_cast<uint8_t>(OTHER), bytes};
}

size_t piece_end(std::string_view text, size_t start, const uint8_t* classes) {
    if (text[start] == '\'')
        for (const std::string_view contraction : CONTRACTIONS)
            if (text.substr(start, contraction.size()) == contraction) return start + contraction.size();
    const size_t after_space = start + (text[start] == ' ' && start + 1 < text.size());
    Symbol symbol = symbol_at(text, after_space, classes);
    if (symbol.kind != SPACE) {
        const uint8_t kind = symbol.kind;
        size_t end = after_space;
        do {
            end += symbol.bytes;
        } while (end < text.size() && (symbol = symbol_at(text, end, classes)).kind == kind);
        return end;
    }
    size_t end = start, last = start;
    while (end < text.size() && (symbol = symbol_at(text, end, classes)).kind == SPACE) {
        last = end;
        end += symbol.bytes;
    }
    return end < text.size() && last > start ? last : end;  // \s+(?!\S)|\s+
}

// Calls on_piece(piece) for each piece and on_end_of_text() for each literal <|endoftext|>, in the text's order.
template <class OnPiece, class OnEndOfText>
void scan(std::string_view text, const uint8_t* classes, OnPiece on_piece, OnEndOfText on_end_of_text) {
    for (;;) {
        const size_t special = text.find(END_OF_TEXT);
        const std::string_view document = text.substr(0, special);
        for (size_t start = 0; start < document.size();) {
            const size_t end = piece_end(document, start, classes);
            on_piece(document.substr(start, end - start));
            start = end;
        }
        if (special == std::string_view::npos) return;
        on_end_of_text();
        text.remove_prefix(special + END_OF_TEXT.size());
    }
}

// ---- What training and encoding share.

constexpr uint32_t BYTES = 256;
constexpr uint32_t NONE = UINT32_MAX;

// A pair of tokens as one number, ordered as (left, right) is.
uint64_t pair_key(uint32_t left, uint32_t right) { return static_cast<uint64_t>(left) << 32 | right; }

// Words owned by the map, each with a value.
template <class Value>
struct WordMap {
    std::deque<std::string> words;  // a deque: its strings stay where the keys point
    std::unordered_map<std::string_view, Value> values;

    Value* find(std::string_view word) {
        const auto found = values.find(word);
        return found == values.end() ? nullptr : &found->second;
    }

    void add(std::string_view word, Value value) { values.emplace(words.emplace_back(word), value); }
};

// One token of a word, linked to its neighbours. Nodes are the word's bytes at first; a merge empties the right one.
struct Node {
    uint32_t token, previous, next;
};

void append_word(std::vector<Node>& nodes, std::string_view word) {
    if (word.size() >= NONE - nodes.size()) throw std::length_error("more than 4 GiB of words");
    for (size_t i = 0; i < word.size(); ++i) {
        const uint32_t at = static_cast<uint32_t>(nodes.size());
        nodes.push_back({static_cast<unsigned char>(word[i]), i == 0 ? NONE : at - 1, i + 1 == word.size() ? NONE : at + 1});
    }
}

void merge_with_next(std::vector<Node>& nodes, uint32_t at, uint32_t merged) {
    const uint32_t gone = nodes[at].next, after = nodes[gone].next;
    nodes[at].token = merged;
    nodes[at].next = after;
    if (after != NONE) nodes[after].previous = at;
    nodes[gone] = {NONE, NONE, NONE};
}

// ---- Training: the pairs' counts are kept up to date merge by merge, from lists of where each pair occurs.

struct WordCounter {
    WordMap<int64_t> counts;
};

class Trainer {
public:
    explicit Trainer(const WordCounter& counter) {
        for (const auto& [word, count] : counter.counts.values) {
            const uint32_t first = static_cast<uint32_t>(nodes_.size());
            append_word(nodes_, word);
            word_of_.resize(nodes_.size(), static_cast<uint32_t>(counts_.size()));
            counts_.push_back(count);
            for (uint32_t at = first; at + 1 < nodes_.size(); ++at) add(at, count);
        }
        push_created();
    }

    // Writes up to `wanted` pairs (left, right) and returns how many: fewer if no word has two tokens left.
    int64_t train(int64_t wanted, uint32_t* merges) {
        int64_t done = 0;
        while (done < wanted && !heap_.empty()) {
            const auto [count, key] = heap_.top();
            heap_.pop();
            const auto found = pairs_.find(key);
            if (found->second.count != count) {  // it fell since: an old pair's count never rises
                if (found->second.count > 0) heap_.push({found->second.count, key});
                else pairs_.erase(found);
                continue;
            }
            const uint32_t left = static_cast<uint32_t>(key >> 32), right = static_cast<uint32_t>(key);
            replace(left, right, std::move(found->second.positions), BYTES + static_cast<uint32_t>(done));
            pairs_.erase(key);
            push_created();
            merges[2 * done] = left;
            merges[2 * done + 1] = right;
            ++done;
        }
        return done;
    }

private:
    struct Occurrences {
        int64_t count = 0;
        std::vector<uint32_t> positions;  // of left tokens, ascending; some may be outdated
    };
    struct Candidate {
        int64_t count;
        uint64_t key;
        bool operator<(const Candidate& other) const { return count != other.count ? count < other.count : key > other.key; }
    };

    uint64_t key_at(uint32_t at) const { return pair_key(nodes_[at].token, nodes_[nodes_[at].next].token); }

    void add(uint32_t at, int64_t count) {
        const auto [entry, is_new] = pairs_.try_emplace(key_at(at));
        if (is_new) created_.push_back(entry->first);
        entry->second.count += count;
        entry->second.positions.push_back(at);
    }

    // Positions ascend, so overlaps as in "aaa" merge from left to right.
    void replace(uint32_t left, uint32_t right, std::vector<uint32_t> positions, uint32_t merged) {
        for (const uint32_t at : positions) {
            const uint32_t next = nodes_[at].next;
            if (nodes_[at].token != left || next == NONE || nodes_[next].token != right) continue;
            const int64_t count = counts_[word_of_[at]];
            const uint32_t previous = nodes_[at].previous, after = nodes_[next].next;
            if (previous != NONE) pairs_[key_at(previous)].count -= count;
            if (after != NONE) pairs_[key_at(next)].count -= count;
            merge_with_next(nodes_, at, merged);
            if (previous != NONE) add(previous, count);
            if (after != NONE) add(at, count);
        }
    }

    void push_created() {
        for (const uint64_t key : created_) heap_.push({pairs_[key].count, key});
        created_.clear();
    }

    std::vector<Node> nodes_;         // of all distinct words, one after the other
    std::vector<uint32_t> word_of_;   // by node
    std::vector<int64_t> counts_;     // by word
    std::unordered_map<uint64_t, Occurrences> pairs_;
    std::vector<uint64_t> created_;   // pairs not yet on the heap
    std::priority_queue<Candidate> heap_;
};

// ---- Encoding: a word's ids come from the cache, or from a heap of the merges that fit: n log n for n bytes.

class Encoder {
public:
    Encoder(const uint32_t* merges, int64_t count) : end_of_text_(BYTES + static_cast<uint32_t>(count)) {
        for (int64_t i = 0; i < count; ++i)
            ranks_.emplace(pair_key(merges[2 * i], merges[2 * i + 1]), static_cast<uint32_t>(i));
    }

    // Writes at most text.size() ids and returns how many.
    int64_t encode(std::string_view text, const uint8_t* classes, uint32_t* ids) {
        uint32_t* end = ids;
        scan(text, classes, [&](std::string_view piece) { end = encode_piece(piece, end); },
             [&] { *end++ = end_of_text_; });
        return end - ids;
    }

private:
    static constexpr size_t CACHED_BYTES = 64, CACHED_WORDS = 1 << 18;  // at most some 60 MB
    struct Span {
        uint32_t begin, count;
    };

    uint32_t* encode_piece(std::string_view piece, uint32_t* out) {
        if (piece.size() > CACHED_BYTES) return merge_word(piece, out);
        if (const Span* known = cache_.find(piece)) return std::copy_n(cached_ids_.data() + known->begin, known->count, out);
        if (cache_.words.size() == CACHED_WORDS) {
            cache_ = {};
            cached_ids_.clear();
        }
        uint32_t* const end = merge_word(piece, out);
        const Span span{static_cast<uint32_t>(cached_ids_.size()), static_cast<uint32_t>(end - out)};
        cached_ids_.insert(cached_ids_.end(), out, end);
        cache_.add(piece, span);
        return end;
    }

    uint32_t* merge_word(std::string_view word, uint32_t* out) {
        nodes_.clear();
        heap_.clear();
        append_word(nodes_, word);
        for (uint32_t at = 0; at + 1 < nodes_.size(); ++at) push(at);
        while (!heap_.empty()) {
            std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
            const uint32_t rank = static_cast<uint32_t>(heap_.back() >> 32), at = static_cast<uint32_t>(heap_.back());
            heap_.pop_back();
            if (rank_at(at) != rank) continue;  // a neighbour has been merged since
            merge_with_next(nodes_, at, BYTES + rank);
            push(at);
            if (nodes_[at].previous != NONE) push(nodes_[at].previous);
        }
        for (uint32_t at = 0; at != NONE; at = nodes_[at].next) *out++ = nodes_[at].token;
        return out;
    }

    uint32_t rank_at(uint32_t at) const {
        if (nodes_[at].next == NONE) return NONE;
        const auto found = ranks_.find(pair_key(nodes_[at].token, nodes_[nodes_[at].next].token));
        return found == ranks_.end() ? NONE : found->second;
    }

    // The lowest rank comes first, and of equal ranks the leftmost.
    void push(uint32_t at) {
        const uint32_t rank = rank_at(at);
        if (rank == NONE) return;
        heap_.push_back(static_cast<uint64_t>(rank) << 32 | at);
        std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    }

    uint32_t end_of_text_;
    std::unordered_map<uint64_t, uint32_t> ranks_;
    WordMap<Span> cache_;
    std::vector<uint32_t> cached_ids_;
    std::vector<Node> nodes_;
    std::vector<uint64_t> heap_;  // rank << 32 | position
};

std::string_view view(const char* text, int64_t size) { return {text, static_cast<size_t>(size)}; }

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

void* bpe_counter_new() {
    return guarded([] { return static_cast<void*>(new WordCounter); }, nullptr);
}

void bpe_counter_free(void* counter) { delete static_cast<WordCounter*>(counter); }

// Counts the words of one more text and returns how many distinct words there are.
int64_t bpe_counter_add(void* counter, const char* text, int64_t size, const uint8_t* classes) {
    return guarded([&]() -> int64_t {
        auto& counts = static_cast<WordCounter*>(counter)->counts;
        const auto count = [&](std::string_view piece) {
            if (int64_t* known = counts.find(piece)) ++*known;
            else counts.add(piece, 1);
        };
        scan(view(text, size), classes, count, [] {});
        return static_cast<int64_t>(counts.words.size());
    }, -1);
}

// merges (wanted, 2): filled from the front; returns how many merges there are, at most wanted.
int64_t bpe_counter_train(const void* counter, int64_t wanted, uint32_t* merges) {
    return guarded([&] { return Trainer(*static_cast<const WordCounter*>(counter)).train(wanted, merges); }, -1);
}

// merges (count, 2), first to last.
void* bpe_encoder_new(const uint32_t* merges, int64_t count) {
    return guarded([&] { return static_cast<void*>(new Encoder(merges, count)); }, nullptr);
}

void bpe_encoder_free(void* encoder) { delete static_cast<Encoder*>(encoder); }

// ids: room for `size` of them; returns how many there are. One thread at a time for each encoder.
int64_t bpe_encoder_encode(void* encoder, const char* text, int64_t size, const uint8_t* classes, uint32_t* ids) {
    return guarded([&] { return static_cast<Encoder*>(encoder)->encode(view(text, size), classes, ids); }, -1);
}

}

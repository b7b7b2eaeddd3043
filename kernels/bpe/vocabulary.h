// A vocabulary made ready for encoding words: its tokens as a tree of prefixes, and which tokens may be neighbours.
//
// Short words are merged from bytes upwards, as hipgpt/data/tokenizer/reference.py does. With a queue that takes n log
// n steps, so the tokens of longer words are found from left to right instead.
//
// Definition: two tokens may be neighbours if merging their bytes gives just these two tokens.
//
// Lemma: a sequence of tokens in which all neighbours may be neighbours is the sequence that merging gives.
//
// So the search takes the longest token that may follow the last one, and continues after it. If none may, it steps
// back and takes a shorter one. An offset that it stepped back from is never tried again, so the number of steps is
// proportional to the length.
//
// The lemma and its use: van Antwerpen & Neubeck 2024, "So many tokens, so little time".
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>
#include "bpe/merge_table.h"
#include "bpe/prefix_tree.h"
#include "bpe/smallest.h"
#include "bpe/tokens.h"

namespace bpe {

class Vocabulary {
   public:
    // merges (count, 2) in order. Merge i makes token 256 + i, unless it is never applied (see `fires`) because its two
    // tokens may not be neighbours or an earlier merge makes the same. results (count): the names that the merges use
    // for what they make, of which several may be equal; null if merge i names it 256 + i.
    Vocabulary(const uint32_t* merges, size_t count, const uint32_t* results = nullptr)
        : halves_(BYTES + count),
          prefix_(BYTES + count, NONE),
          sizes_(BYTES + count, 0),
          merges_(count),
          tree_(static_cast<uint32_t>(BYTES + count)) {
        std::vector<std::string> spelled(BYTES + count);
        for (uint32_t byte = 0; byte < BYTES; ++byte) {
            halves_[byte] = {byte, byte};
            sizes_[byte] = 1;
            spelled[byte] = std::string(1, static_cast<char>(byte));
        }
        std::vector<uint32_t> made(BYTES + count, NONE);
        for (uint32_t byte = 0; byte < BYTES; ++byte) made[byte] = byte;
        for (uint32_t token = BYTES; token < halves_.size(); ++token) {
            const uint32_t index = token - BYTES, result = results ? results[index] : token;
            const uint32_t left = made.at(merges[2 * index]), right = made.at(merges[2 * index + 1]);
            if (left == NONE || right == NONE || made.at(result) != NONE || !may_be_neighbours(left, right)) continue;
            made[result] = token;
            halves_[token] = {left, right};
            merges_.add(left, right, token);
            spelled[token] = spelled[left] + spelled[right];
            sizes_[token] = static_cast<uint32_t>(spelled[token].size());
        }
        std::vector<uint32_t> by_size;
        for (uint32_t token = BYTES; token < halves_.size(); ++token)
            if (fires(token)) by_size.push_back(token);
        std::stable_sort(by_size.begin(), by_size.end(), [&](uint32_t a, uint32_t b) { return sizes_[a] < sizes_[b]; });
        for (const uint32_t token : by_size) prefix_[token] = tree_.insert(spelled[token], token);
    }

    // Whether the merge that makes a token is ever applied.
    bool fires(uint32_t token) const { return sizes_[token] > 0; }

    // The memory of encoding a word: its tokens; a bit for each offset from which no tokens reach the end; and answers
    // that a run of one letter asks for again and again: which token fits, and the longest token of equal bytes.
    struct Work {
        struct Answer {
            uint32_t last = NONE, next = NONE, fitting = NONE;
        };
        std::vector<uint32_t> tokens;
        std::vector<uint64_t> tried;
        std::vector<Answer> answers = std::vector<Answer>(1024);
        std::string_view read;  // by the last long search
        uint32_t longest = NONE;
    };

    // Fills work.tokens with the tokens of a word of at least one byte. `work` must serve no other vocabulary.
    void encode(std::string_view word, Work& work) const {
        if (word.size() <= 16) return merge_short<16>(word, work.tokens);
        if (word.size() <= 32) return merge_short<32>(word, work.tokens);
        if (word.size() <= 48) return merge_short<48>(word, work.tokens);
        if (word.size() < 4 * HEAD || !encode_repeated(word, work)) encode_from_left(word, work);
    }

   private:
    static constexpr uint32_t PLACE_BITS = 6, HEAD = 1024;  // bytes
    struct Halves {
        uint32_t left, right;
    };

    // Applies merges to bytes, the earliest first; ties go to the leftmost. Byte i has place i + 1, and a token that of
    // its first byte. Before and after the word stands a token that merges with nothing. `next` has for each place the
    // token that merging with the following one makes, with the place in the low bits, so that the smallest number is
    // the next merge to apply.
    template <size_t MOST>
    void merge_short(std::string_view word, std::vector<uint32_t>& tokens) const {
        const size_t size = word.size();
        uint32_t token[MOST + 2];
        Smallest<MOST> next;
        const auto offer = [&](size_t place, uint32_t made) {
            next.set(place, made << PLACE_BITS | static_cast<uint32_t>(place));
        };
        token[0] = token[size + 1] = static_cast<uint32_t>(halves_.size());
        for (size_t i = 0; i < size; ++i) token[i + 1] = static_cast<unsigned char>(word[i]);
        for (size_t place = 1; place < size; ++place) {
            const uint32_t two = tree_.after_two(token[place], token[place + 1]);
            offer(place, tree_.is_token(two) ? two : NONE);
        }
        uint64_t begins = (uint64_t{4} << size) - 1;  // bit i: a token begins at place i
        for (uint32_t best; (best = next.get()) < NONE << PLACE_BITS;) {
            const size_t place = best % (1 << PLACE_BITS);
            const uint64_t before = begins & ~(~uint64_t{0} << place), after = begins & (~uint64_t{1} << place);
            const size_t left = 63 - __builtin_clzll(before), joined = __builtin_ctzll(after);
            const size_t right = __builtin_ctzll(after & (after - 1));
            begins ^= uint64_t{1} << joined;
            token[place] = best >> PLACE_BITS;
            next.set(joined, NONE);
            offer(place, merges_.find(token[place], token[right]));
            offer(left, merges_.find(token[left], token[place]));
        }
        tokens.clear();
        for (size_t place = 1; place <= size; place = __builtin_ctzll(begins & (~uint64_t{1} << place)))
            tokens.push_back(token[place]);
    }

    void encode_from_left(std::string_view word, Work& work) const {
        std::vector<uint32_t>& tokens = work.tokens;
        tokens.clear();
        work.tried.assign(word.size() / 64 + 1, 0);
        work.read = {};
        const auto tried = [&](size_t end) { return work.tried[end / 64] >> (end % 64) & 1; };
        uint32_t next = longest(word, work);
        for (size_t at = 0; at < word.size();) {
            next = fitting(work, next);
            while (next != NONE && tried(at + sizes_[next])) next = fitting(work, prefix_[next]);
            if (next == NONE) {  // step back
                work.tried[at / 64] |= uint64_t{1} << (at % 64);
                at -= sizes_[tokens.back()];
                next = prefix_[tokens.back()];
                tokens.pop_back();
                continue;
            }
            tokens.push_back(next);
            at += sizes_[next];
            if (at < word.size()) next = longest(word.substr(at), work);
        }
    }

    // Long words mostly repeat themselves: blanks, one letter, "-=-=". Guesses from the word's head which tokens
    // repeat. The guess is right if all its tokens may be neighbours. Returns false if the word does not repeat itself
    // so.
    bool encode_repeated(std::string_view word, Work& work) const {
        encode_from_left(word.substr(0, HEAD), work);
        std::vector<uint32_t> tokens = work.tokens;
        const size_t first = tokens.size() / 4;
        const auto middle = tokens.begin() + static_cast<std::ptrdiff_t>(first);
        size_t repeated = 1, bytes = 0, begin = 0;
        while (repeated <= first && !std::equal(middle, middle + static_cast<std::ptrdiff_t>(first),
                                                middle + static_cast<std::ptrdiff_t>(repeated)))
            ++repeated;
        if (repeated > first) return false;
        for (size_t i = 0; i < first; ++i) begin += sizes_[tokens[i]];
        for (size_t i = first; i < first + repeated; ++i) bytes += sizes_[tokens[i]];
        const auto seam = std::mismatch(word.begin() + begin, word.end() - bytes, word.begin() + begin + bytes);
        const size_t alike = seam.second - word.begin() - begin;  // bytes from `begin` on that repeat every `bytes`
        if (alike < 2 * HEAD) return false;
        const size_t times = (alike - HEAD) / bytes;
        tokens.resize(first + repeated);
        tokens.reserve(first + (times + 1) * repeated);
        for (size_t i = repeated; i < times * repeated; ++i) tokens.push_back(tokens[first + i - repeated]);
        encode_from_left(word.substr(begin + times * bytes), work);
        if (!may_be_neighbours(tokens.back(), work.tokens.front())) return false;
        tokens.insert(tokens.end(), work.tokens.begin(), work.tokens.end());
        work.tokens.swap(tokens);
        return true;
    }

    // The longest among `next` and the tokens that it begins with that may follow the last token; NONE if none may.
    uint32_t fitting(Work& work, uint32_t next) const {
        if (next == NONE || work.tokens.empty()) return next;
        const uint32_t last = work.tokens.back();
        Work::Answer& answer = work.answers[mixed(pair_key(last, next)) & (work.answers.size() - 1)];
        if (answer.last == last && answer.next == next) return answer.fitting;
        answer = {last, next, next};
        while (answer.fitting != NONE && !may_be_neighbours(last, answer.fitting))
            answer.fitting = prefix_[answer.fitting];
        return answer.fitting;
    }

    // Whether merging the bytes of both gives these two tokens. Takes the merges of the two apart, latest first, down
    // to the bytes at the seam: no merge across the seam may be earlier than the one taken apart. Of two equal merges
    // (in "xxx") the left one is applied first.
    bool may_be_neighbours(uint32_t left, uint32_t right) const {
        uint32_t limit = NONE;  // tokens below it existed when the pair at the seam was as it is now
        for (;;) {
            const uint32_t across = merges_.find(left, right);
            if (across != NONE && across < limit) return false;
            if (left > right) {
                if (left < BYTES) return true;
                limit = left;
                left = halves_[left].right;
            } else {
                if (right < BYTES) return true;
                limit = right + 1;
                right = halves_[right].left;
            }
        }
    }

    // The longest token that the text begins with.
    uint32_t longest(std::string_view text, Work& work) const {
        constexpr size_t LONG_SEARCH = 16;  // bytes
        if (!work.read.empty() && text.substr(0, work.read.size()) == work.read) return work.longest;
        const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
        uint32_t found = byte(0);
        if (text.size() == 1) return found;
        uint32_t node = tree_.after_two(found, byte(1));
        size_t read = 2;
        while (node != NONE) {
            if (tree_.is_token(node)) found = node;
            if (read == text.size()) return found;
            node = tree_.after(node, byte(read++));
        }
        if (read >= LONG_SEARCH) work.read = text.substr(0, read), work.longest = found;
        return found;
    }

    std::vector<Halves> halves_;    // by token; a byte is its own half
    std::vector<uint32_t> prefix_;  // by token: the longest shorter token that it begins with, NONE for bytes
    std::vector<uint32_t> sizes_;   // by token, in bytes; 0 for a merge that is never applied
    MergeTable merges_;
    PrefixTree tree_;
};

}  // namespace bpe

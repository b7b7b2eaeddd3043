// Training merges. The counts of pairs are updated merge by merge, from lists of the words in which each pair occurs.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>
#include "bpe/list_pool.h"
#include "bpe/neighbours.h"
#include "bpe/tokens.h"
#include "bpe/word_counter.h"

namespace bpe {

struct Merge {
    uint32_t left, right;
    int64_t count;    // of the pair when it was chosen
    int64_t applied;  // tokens saved; fewer than count if the pair overlaps itself
};

class Trainer {
   public:
    explicit Trainer(WordCounter counter) {
        size_t tokens = 0, words = 0;
        counter.for_words([&](const char*, size_t size, int64_t) {
            if (size > 1) tokens += size, ++words;
        });
        tokens_.reserve(tokens);
        words_.reserve(words);
        counter.for_words([&](const char* word, size_t size, int64_t count) {
            if (size < 2) return;
            words_.push_back({count, tokens_.size(), static_cast<uint32_t>(size)});
            for (size_t i = 0; i < size; ++i) tokens_.push_back(static_cast<unsigned char>(word[i]));
        });
        counter = WordCounter();  // its memory is needed below
        slots_.assign(FIRST_SLOTS, NONE);
        list_bytes_pairs();
    }

    // Finds up to `most` merges after those found before, and returns how many; fewer if no word has two tokens left.
    size_t train(size_t most, Merge* merges) {
        size_t done = 0;
        for (; done < most; ++done) {
            const uint32_t best = take_best();
            if (best == NONE) break;
            const uint64_t key = pairs_[best].key;
            merges[done] = {static_cast<uint32_t>(key >> 32), static_cast<uint32_t>(key), pairs_[best].count, 0};
            merges[done].applied = apply(best, BYTES + merged_++);
        }
        return done;
    }

   private:
    static constexpr size_t FIRST_SLOTS = 1 << 12;
    struct Word {
        int64_t count;
        uint64_t begin;
        uint32_t size;  // in tokens, which merging moves to the front
    };
    struct Pair {
        uint64_t key;
        int64_t count;
        uint32_t* words;  // the words in which it occurs, ascending; some may have lost it since
        uint32_t capacity, size;
    };
    struct Candidate {
        int64_t count;
        uint64_t key;
        uint32_t pair;
        bool operator<(const Candidate& other) const {
            return count != other.count ? count < other.count : key > other.key;
        }
    };
    void list_bytes_pairs() {
        std::vector<uint32_t> last(BYTES * BYTES, NONE), size(BYTES * BYTES);
        std::vector<int64_t> count(BYTES * BYTES);
        const auto for_pairs = [&](auto body) {
            for (size_t at = 0; at < words_.size(); ++at) {
                const uint32_t* const tokens = &tokens_[words_[at].begin];
                for (uint32_t i = 0; i + 1 < words_[at].size; ++i)
                    body(tokens[i] * BYTES + tokens[i + 1], static_cast<uint32_t>(at));
            }
        };
        for_pairs([&](size_t pair, uint32_t at) {
            count[pair] += words_[at].count;
            if (last[pair] != at) last[pair] = at, ++size[pair];
        });
        std::vector<uint32_t> index(BYTES * BYTES, NONE);
        for (uint32_t pair = 0; pair < BYTES * BYTES; ++pair)
            if (size[pair]) index[pair] = create(pair_key(pair / BYTES, pair % BYTES), count[pair], size[pair]);
        std::fill(last.begin(), last.end(), NONE);
        for_pairs([&](size_t pair, uint32_t at) {
            if (last[pair] == at) return;
            last[pair] = at;
            Pair& listed = pairs_[index[pair]];
            listed.words[listed.size++] = at;
        });
    }

    // Returns the index of a new pair, whose list has room for `words` words.
    uint32_t create(uint64_t key, int64_t count, uint32_t words) {
        if (3 * (pairs_.size() + 1) > 2 * slots_.size()) grow();
        const uint32_t index = static_cast<uint32_t>(pairs_.size());
        pairs_.push_back({key, count, lists_.take(words), words, 0});
        slots_[free_slot(key)] = index;
        if (count >= floor_) push(index);
        return index;
    }

    size_t free_slot(uint64_t key) const {
        size_t at = mixed(key);
        while (slots_[at & (slots_.size() - 1)] != NONE) ++at;
        return at & (slots_.size() - 1);
    }

    Pair* find(uint64_t key) {
        for (size_t at = mixed(key);; ++at) {
            const uint32_t index = slots_[at & (slots_.size() - 1)];
            if (index == NONE) return nullptr;
            if (pairs_[index].key == key) return &pairs_[index];
        }
    }

    void grow() {
        slots_.assign(2 * slots_.size(), NONE);
        for (uint32_t index = 0; index < pairs_.size(); ++index) slots_[free_slot(pairs_[index].key)] = index;
    }

    // The counts of listed pairs only fall, so a candidate that is out of date is pushed again with its present count.
    // Pairs rarer than floor_ wait outside the heap until it is empty.
    uint32_t take_best() {
        for (;;) {
            while (!heap_.empty()) {
                std::pop_heap(heap_.begin(), heap_.end());
                const Candidate top = heap_.back();
                heap_.pop_back();
                const int64_t count = pairs_[top.pair].count;
                if (count == top.count) return top.pair;
                if (count >= floor_) push(top.pair);
            }
            if (floor_ == 1) return NONE;
            const int64_t above = floor_;
            floor_ = std::max<int64_t>(1, above / 4);
            for (uint32_t index = 0; index < pairs_.size(); ++index)
                if (pairs_[index].count >= floor_ && pairs_[index].count < above) push(index);
        }
    }

    void push(uint32_t index) {
        heap_.push_back({pairs_[index].count, pairs_[index].key, index});
        std::push_heap(heap_.begin(), heap_.end());
    }

    // Replaces the pair in all words; returns the number of tokens saved, each word counted as often as it occurs.
    int64_t apply(uint32_t index, uint32_t merged) {
        const Pair pair = pairs_[index];
        const uint32_t left = static_cast<uint32_t>(pair.key >> 32), right = static_cast<uint32_t>(pair.key);
        before_.of.resize(merged + 1);
        after_.of.resize(merged + 1);
        int64_t applied = 0;
        for (uint32_t i = 0; i < pair.size; ++i) {
            if (i + 16 < pair.size) __builtin_prefetch(&words_[pair.words[i + 16]]);
            if (i + 8 < pair.size) __builtin_prefetch(&tokens_[words_[pair.words[i + 8]].begin]);
            applied += replace(pair.words[i], left, right, merged);
        }
        for (const uint32_t one : before_.met) lower(pair_key(one, left), before_.of[one].count);
        for (const uint32_t one : after_.met) lower(pair_key(right, one), after_.of[one].count);
        give_up(pairs_[index]);
        // A left neighbour may be the merged token itself. Then its right neighbour was still `left` when it was
        // counted.
        const int64_t repeated = before_.of[merged].count;
        if (repeated) after_.of[left].count -= repeated;
        list(after_, [&](uint32_t one) { return pair_key(merged, one); });
        list(before_, [&](uint32_t one) { return pair_key(one, merged); });
        return applied;
    }

    int64_t replace(uint32_t at, uint32_t left, uint32_t right, uint32_t merged) {
        Word& word = words_[at];
        uint32_t* const tokens = &tokens_[word.begin];
        const uint32_t size = word.size;
        uint32_t length = 0;  // of the word so far
        for (uint32_t i = 0; i < size; ++i) {
            if (tokens[i] != left || i + 1 == size || tokens[i + 1] != right) {
                tokens[length++] = tokens[i];
                continue;
            }
            if (length > 0) before_.add(tokens[length - 1], at, word.count);
            if (i + 2 < size) after_.add(tokens[i + 2], at, word.count);
            tokens[length++] = merged;
            ++i;
        }
        word.size = length;
        return (size - length) * word.count;
    }

    void lower(uint64_t key, int64_t count) {
        Pair* const pair = find(key);
        if (pair && (pair->count -= count) == 0) give_up(*pair);
    }

    // A pair that is gone never returns, because a merge only adds pairs with its new token.
    void give_up(Pair& pair) {
        if (pair.capacity) lists_.give_back(pair.words, pair.capacity);
        pair.count = pair.capacity = pair.size = 0;
    }

    // Creates a pair for each neighbour met, with its count and its words, and clears the neighbours.
    template <class KeyOf>
    void list(Neighbours& neighbours, KeyOf key_of) {
        for (const uint32_t token : neighbours.met) {
            Neighbours::One& one = neighbours.of[token];
            one.last = create(key_of(token), one.count, one.words);
        }
        for (size_t i = 0; i < neighbours.token.size(); ++i) {
            Pair& pair = pairs_[neighbours.of[neighbours.token[i]].last];
            pair.words[pair.size++] = neighbours.word[i];
        }
        for (const uint32_t token : neighbours.met) neighbours.of[token] = {};
        neighbours.met.clear();
        neighbours.token.clear();
        neighbours.word.clear();
    }

    Table<uint32_t> tokens_;  // of all words, one after another
    Table<Word> words_;
    ChunkedTable<Pair> pairs_;
    Table<uint32_t> slots_;  // a hash table of indices into pairs_
    ListPool lists_;
    std::vector<Candidate> heap_;
    int64_t floor_ = INT64_MAX / 4;
    Neighbours before_, after_;
    uint32_t merged_ = 0;
};

}  // namespace bpe

// What a merge does to the pairs on one side of it: how often each neighbour stands there, and in which words.
#pragma once
#include <cstdint>
#include <vector>
#include "bpe/tokens.h"

namespace bpe {

struct Neighbours {
    struct One {
        int64_t count = 0;
        uint32_t words = 0, last = NONE;
    };
    std::vector<One> of;                     // by token
    std::vector<uint32_t> met, token, word;  // each neighbour once; then one (token, word) for each occurrence

    void add(uint32_t neighbour, uint32_t at, int64_t count) {
        One& one = of[neighbour];
        if (one.words == 0) met.push_back(neighbour);
        one.count += count;
        if (one.words != 0 && one.last == at) return;
        one.last = at;
        ++one.words;
        token.push_back(neighbour);
        word.push_back(at);
    }
};

}  // namespace bpe

// Looks for merges in a full table of kernels/bpe/merge_table.h: see test_merge_table.py.
#include "bpe/merge_table.h"

// Fills all slots with the merges of two left tokens. Returns how many pairs of any of the first `lefts` tokens give a
// token other than theirs.
extern "C" int wrong_in_a_full_table(int lefts) {
    constexpr uint32_t MOST = 4096, BUCKETS = 1024,
                       RIGHTS = 4 * BUCKETS;  // four rights of a left fall into each bucket
    bpe::MergeTable table(MOST);
    const auto token_of = [](uint32_t left, uint32_t right) { return left < 2 ? left * RIGHTS + right : bpe::NONE; };
    for (uint32_t left = 0; left < 2; ++left)
        for (uint32_t right = 0; right < RIGHTS; ++right) table.add(left, right, token_of(left, right));
    int wrong = 0;
    for (int left = 0; left < lefts; ++left)
        for (uint32_t right = 0; right < RIGHTS; ++right) wrong += table.find(left, right) != token_of(left, right);
    return wrong;
}

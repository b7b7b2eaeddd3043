// Memory of a thread for packed words and sums.
#pragma once
#include "cpu/select/gemm_tile.h"
#include <vector>

// A thread's memory, kept from call to call and handed out in pieces that begin at a line of the cache.
class Pieces {
   public:
    // words: of all pieces together, and a LINE for each
    explicit Pieces(int64_t words) : memory(kept()) {
        if (static_cast<int64_t>(memory.size()) < words + LINE) memory.resize(words + LINE);
        next = memory.data() + (-reinterpret_cast<uintptr_t>(memory.data()) / sizeof(Word)) % LINE;
    }
    Word* take(int64_t words) {
        Word* const piece = next;
        next += padded(words, LINE);
        return piece;
    }

   private:
    static std::vector<Word>& kept() {
        static thread_local std::vector<Word> memory;
        return memory;
    }
    std::vector<Word>& memory;
    Word* next;
};

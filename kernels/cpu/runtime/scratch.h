// A thread's scratch memory for packed words and sums: reused by all calls of this thread, never given back.
#pragma once
#include "cpu/select/gemm_tile.h"
#include <vector>

// Hands out memory that is valid until the arena is destroyed; its contents are undefined. A thread has one arena at a
// time. Memory grows by chunks, because what was handed out must not move; the next arena joins them into one chunk, so
// after the first call of a kind nothing is allocated.
class ScratchArena {
   public:
    ScratchArena() : chunks(chunks_of_this_thread()) {
        if (chunks.size() > 1) join_chunks();
    }

    // Returns room for `words` words, starting at a cache line.
    PackedWord* take(int64_t words) {
        const size_t lines = padded(words, LINE) / LINE;
        if (chunks.empty() || used + lines > chunks.back().size()) add_chunk(lines);
        PackedWord* const taken = chunks.back()[used].words;
        used += lines;
        return taken;
    }

   private:
    struct alignas(LINE * sizeof(PackedWord)) CacheLine {
        PackedWord words[LINE];
    };
    typedef std::vector<CacheLine> Chunk;

    // Both are rare, and kept out of line so that take stays a few instructions.
    __attribute__((noinline)) void add_chunk(size_t lines) {
        chunks.emplace_back(lines);
        used = 0;
    }
    __attribute__((noinline)) void join_chunks() {
        size_t lines = 0;
        for (const Chunk& chunk : chunks) lines += chunk.size();
        chunks.clear();
        chunks.emplace_back(lines);
    }

    static std::vector<Chunk>& chunks_of_this_thread() {
        static thread_local std::vector<Chunk> chunks;
        return chunks;
    }
    std::vector<Chunk>& chunks;
    size_t used = 0;  // cache lines of the last chunk
};

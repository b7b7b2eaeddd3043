// Memory for large tables that are read at random: in pages of 2 MiB where Linux gives them, so that finding a page
// costs less than reading from it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace bpe {

template <class Value>
struct LargePages {
    using value_type = Value;
    static constexpr std::size_t PAGE = 2 << 20, LINE = 64;

    LargePages() = default;
    template <class Other>
    LargePages(const LargePages<Other>&) {}

    Value* allocate(std::size_t count) {
        const std::size_t bytes = size_of(count);
        void* const place = bytes % PAGE ? std::aligned_alloc(LINE, bytes) : map(bytes);
        if (!place) throw std::bad_alloc();
        return static_cast<Value*>(place);
    }

    void deallocate(Value* place, std::size_t count) {
        const std::size_t bytes = size_of(count);
        if (bytes % PAGE) std::free(place);
        else unmap(place, bytes);
    }

    bool operator==(const LargePages&) const { return true; }
    bool operator!=(const LargePages&) const { return false; }

private:
    // A multiple of PAGE says that the table is in pages of its own.
    static std::size_t size_of(std::size_t count) {
        const std::size_t bytes = count * sizeof(Value), unit = bytes >= PAGE ? PAGE : LINE;
        return (bytes + unit - 1) / unit * unit;
    }

#ifdef __linux__
    // From the system and back to it at once: the C library would keep a thread's memory for this thread.
    static void* map(std::size_t bytes) {
        void* const found = mmap(nullptr, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (found == MAP_FAILED) return nullptr;
        char* const begin = static_cast<char*>(found);
        const std::size_t before = -reinterpret_cast<std::uintptr_t>(begin) % PAGE;
        if (before) munmap(begin, before);
        munmap(begin + before + bytes, PAGE - before);
        madvise(begin + before, bytes, MADV_HUGEPAGE);  // a wish: without it all is as correct
        return begin + before;
    }
    static void unmap(void* place, std::size_t bytes) { munmap(place, bytes); }
#else
    static void* map(std::size_t bytes) { return std::aligned_alloc(PAGE, bytes); }
    static void unmap(void* place, std::size_t) { std::free(place); }
#endif
};

template <class Value>
using Table = std::vector<Value, LargePages<Value>>;

// A table that grows without moving, so that there are never two of it.
template <class Value>
class Blocks {
public:
    Value& operator[](std::size_t at) { return blocks_[at / BLOCK][at % BLOCK]; }
    std::size_t size() const { return size_; }

    void push_back(const Value& value) {
        if (size_ % BLOCK == 0) blocks_.emplace_back().reserve(BLOCK);
        blocks_.back().push_back(value);
        ++size_;
    }

private:
    static constexpr std::size_t BLOCK = 1 << 16;
    std::vector<Table<Value>> blocks_;
    std::size_t size_ = 0;
};

}  // namespace bpe

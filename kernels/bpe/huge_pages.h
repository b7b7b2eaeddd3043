// Memory for large tables that are read at random: in huge pages of 2 MiB where Linux provides them, because a miss of
// the TLB would cost more than the read itself.
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
struct HugePages {
    using value_type = Value;
    static constexpr std::size_t PAGE = 2 << 20, LINE = 64;

    HugePages() = default;
    template <class Other>
    HugePages(const HugePages<Other>&) {}

    Value* allocate(std::size_t count) {
        const std::size_t bytes = size_of(count);
        void* const address = bytes % PAGE ? std::aligned_alloc(LINE, bytes) : map(bytes);
        if (!address) throw std::bad_alloc();
        return static_cast<Value*>(address);
    }

    void deallocate(Value* address, std::size_t count) {
        const std::size_t bytes = size_of(count);
        if (bytes % PAGE)
            std::free(address);
        else
            unmap(address, bytes);
    }

    bool operator==(const HugePages&) const { return true; }
    bool operator!=(const HugePages&) const { return false; }

   private:
    // Rounded up; a multiple of PAGE means that the table has huge pages of its own.
    static std::size_t size_of(std::size_t count) {
        const std::size_t bytes = count * sizeof(Value), unit = bytes >= PAGE ? PAGE : LINE;
        return (bytes + unit - 1) / unit * unit;
    }

#ifdef __linux__
    // Directly from the system and back to it, because the C library would hold on to the memory for one thread.
    static void* map(std::size_t bytes) {
        void* const found = mmap(nullptr, bytes + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (found == MAP_FAILED) return nullptr;
        char* const begin = static_cast<char*>(found);
        const std::size_t before = -reinterpret_cast<std::uintptr_t>(begin) % PAGE;
        if (before) munmap(begin, before);
        munmap(begin + before + bytes, PAGE - before);
        madvise(begin + before, bytes, MADV_HUGEPAGE);  // a hint: results do not depend on it
        return begin + before;
    }
    static void unmap(void* address, std::size_t bytes) { munmap(address, bytes); }
#else
    static void* map(std::size_t bytes) { return std::aligned_alloc(PAGE, bytes); }
    static void unmap(void* address, std::size_t) { std::free(address); }
#endif
};

template <class Value>
using Table = std::vector<Value, HugePages<Value>>;

// A table that grows without moving its values, so that there are never two copies of it.
template <class Value>
class ChunkedTable {
   public:
    Value& operator[](std::size_t at) { return chunks_[at / CHUNK][at % CHUNK]; }
    std::size_t size() const { return size_; }

    void push_back(const Value& value) {
        if (size_ % CHUNK == 0) chunks_.emplace_back().reserve(CHUNK);
        chunks_.back().push_back(value);
        ++size_;
    }

   private:
    static constexpr std::size_t CHUNK = 1 << 16;
    std::vector<Table<Value>> chunks_;
    std::size_t size_ = 0;
};

}  // namespace bpe

// Memory for large tables that are read at random: in pages of 2 MiB where Linux gives them, so that finding a page
// costs less than reading from it.
#pragma once
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
        std::size_t bytes = count * sizeof(Value);
        const bool large = bytes >= PAGE;
        const std::size_t alignment = large ? PAGE : LINE;
        bytes = (bytes + alignment - 1) / alignment * alignment;
        void* const place = std::aligned_alloc(alignment, bytes);
        if (!place) throw std::bad_alloc();
#ifdef __linux__
        if (large) madvise(place, bytes, MADV_HUGEPAGE);  // a wish: without it all is as correct
#endif
        return static_cast<Value*>(place);
    }

    void deallocate(Value* place, std::size_t) { std::free(place); }

    bool operator==(const LargePages&) const { return true; }
    bool operator!=(const LargePages&) const { return false; }
};

template <class Value>
using Table = std::vector<Value, LargePages<Value>>;

}  // namespace bpe

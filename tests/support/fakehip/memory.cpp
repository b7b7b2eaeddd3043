// The stand-in's device memory: pages out of a range reserved at the start, one untouchable page after each allocation.
#include <sys/mman.h>

#include <cstring>
#include <iterator>
#include <map>

#include "fakehip.h"

namespace {

constexpr size_t PAGE = 4096, RESERVED_BYTES = size_t{1} << 40;

struct Allocation {
    size_t size;
    int device;
};

std::map<uintptr_t, Allocation> live;  // by address
std::map<int, size_t> used;            // by device
uintptr_t next = 0;

size_t whole_pages(size_t size) { return (size + PAGE - 1) / PAGE * PAGE; }

}  // namespace

void* allocate(size_t size, int device) {
    if (size > free_bytes(device)) return nullptr;
    if (!next) {
        void* reserved = mmap(nullptr, RESERVED_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (reserved == MAP_FAILED) return nullptr;
        next = reinterpret_cast<uintptr_t>(reserved);
    }
    void* address = reinterpret_cast<void*>(next);
    if (mprotect(address, whole_pages(size), PROT_READ | PROT_WRITE)) return nullptr;
    memset(address, POISON, size);
    live[next] = {size, device};
    used[device] += size;
    next += whole_pages(size) + PAGE;
    return address;
}

bool release(void* address) {
    const auto found = live.find(reinterpret_cast<uintptr_t>(address));
    if (found == live.end()) return false;
    const auto [size, device] = found->second;
    madvise(address, whole_pages(size), MADV_DONTNEED);
    mprotect(address, whole_pages(size), PROT_NONE);
    used[device] -= size;
    live.erase(found);
    return true;
}

size_t free_bytes(int device) { return MEMORY_BYTES - used[device]; }

Range allocation_at(uintptr_t address, int device) {
    const auto after = live.upper_bound(address);
    if (after == live.begin()) return {};
    const auto& [begin, allocation] = *std::prev(after);
    if (allocation.device != device) return {};
    return {begin, begin + allocation.size};
}

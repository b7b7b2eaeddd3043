// A HIP runtime and HIPRTC for machines without a GPU: real hip-python loads them, and kernels run on the processor.
// The parts share this header: runtime.cpp, compiler.cpp, memory.cpp, block.cpp, wave.cpp, rccl.cpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

constexpr int POISON = 0xFF;  // fresh memory reads as NaN in floats and as -1 in integers

struct Index {
    unsigned x, y, z;
};

struct Range {
    uintptr_t begin = 1, end = 0;

    bool holds(uintptr_t address, size_t size) const { return begin <= address && address + size <= end; }
};

// runtime.cpp
int device_in_use();                                              // what hipSetDevice chose last
bool submit_to(void* stream, const std::function<bool()>& work);  // does it, or records it where the stream is captured

// memory.cpp: each device's memory. Addresses are not used twice, so an address that was freed stays wrong.
constexpr size_t MEMORY_BYTES = size_t{4} << 30;  // of each device
void* allocate(size_t size, int device);          // nullptr if there is not so much left
bool release(void* address);
size_t free_bytes(int device);
Range allocation_at(uintptr_t address,
                    int device);  // the live one that starts last at or before address, or an empty one

// block.cpp
struct Kernel {
    std::string name;
    void (*run)(const char* arguments);  // one thread
    size_t argument_bytes;
    std::vector<Range> shared_variables;
};

std::vector<Range> variables_within(Range addresses);

struct Place {  // where a grid runs
    int device;
    unsigned wave;
};
std::string run_grid(const Kernel&, Place, Index grid, Index threads,
                     const std::string& arguments);  // what went wrong, or ""

// wave.cpp: what a wave's lanes do together. given: each lane's own record, which the operation reads and writes; returns
// what is wrong with them, or nullptr.
constexpr unsigned MOST_LANES = 64;
using Operation = const char* (*)(void* const* given, unsigned lanes);

// The calling lane waits for its wave (block.cpp); the operation is done once when all lanes have come.
void meet(Operation, void* given);

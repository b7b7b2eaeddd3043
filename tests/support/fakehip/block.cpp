// Runs a grid one block after another, a fiber for each thread, which runs until it waits for its wave or its block.
//
// Threads do not run in step, so what a kernel may not rely on shows: fibers run upwards and downwards in turn, shared
// memory starts each block as poison, lanes that meet must be all lanes of their wave, and a block's barrier needs all its
// threads. Every load and store is checked: the kernels are compiled with calls to the hooks at the end of this file
// (-fsanitize=kernel-address, as compiler.cpp asks for), and may touch device memory, shared variables and their stack.
#include <setjmp.h>
#include <ucontext.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "fakehip.h"

extern "C" __attribute__((visibility("default"))) Index threadIdx, blockIdx, blockDim, gridDim;
Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t STACK_BYTES = 64 << 10;

enum State { RUNNABLE, AT_MEETING, AT_BLOCK_BARRIER, FINISHED };
const char* const STATES[] = {"runnable", "at something that their wave does together", "at the block's barrier",
                              "finished"};

struct Thread {
    std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
    bool begun = false;
    ucontext_t beginning;
    jmp_buf place;  // where it goes on; a jump, unlike a change of contexts, needs no system call
    State state;
    Index index;
    Operation operation;  // of the meeting that it is at
    void* given;
};

std::vector<Thread> threads;
size_t thread_count, current;
jmp_buf scheduler;
const Kernel* kernel;
Place place;
const char* arguments;
std::string fault;
unsigned rounds;
Range stack, last_hit;
std::map<uintptr_t, size_t> variables;  // of all modules: address -> size

std::string words(Index index) {
    return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

std::string where() { return kernel->name + ", block " + words(blockIdx); }

void wait_as(State state) {
    threads[current].state = state;
    if (!_setjmp(threads[current].place)) _longjmp(scheduler, 1);
}

[[noreturn]] void fail(const std::string& what) {
    fault = where() + ", thread " + words(threadIdx) + ": " + what;
    _longjmp(scheduler, 1);
}

// A fiber's life: a thread of one block after another.
void run_threads() {
    for (;;) {
        kernel->run(arguments);
        wait_as(FINISHED);
    }
}

void begin(Thread& thread) {
    thread.begun = true;
    getcontext(&thread.beginning);
    thread.beginning.uc_stack.ss_sp = thread.stack.get();
    thread.beginning.uc_stack.ss_size = STACK_BYTES;
    makecontext(&thread.beginning, run_threads, 0);
    setcontext(&thread.beginning);
}

void resume(size_t which) {
    Thread& thread = threads[which];
    current = which;
    threadIdx = thread.index;
    const uintptr_t base = reinterpret_cast<uintptr_t>(thread.stack.get());
    stack = {base, base + STACK_BYTES};
    if (_setjmp(scheduler)) return;
    if (thread.begun) _longjmp(thread.place, 1);
    begin(thread);
}

// Lets the lanes of a wave go on if they all wait for one another.
bool release_wave(size_t begin, size_t end) {
    void* given[MOST_LANES] = {};
    for (size_t i = begin; i < end; ++i) {
        if (threads[i].state != AT_MEETING || threads[i].operation != threads[begin].operation) return false;
        given[i - begin] = threads[i].given;
    }
    if (const char* wrong = threads[begin].operation(given, end - begin)) fault = where() + ": " + wrong;
    for (size_t i = begin; i < end; ++i) threads[i].state = RUNNABLE;
    return true;
}

bool all_are(State state) {
    for (size_t i = 0; i < thread_count; ++i)
        if (threads[i].state != state) return false;
    return true;
}

bool release_waves() {
    bool released = false;
    for (size_t begin = 0; begin < thread_count; begin += place.wave) {
        const size_t end = begin + place.wave;
        if (release_wave(begin, end < thread_count ? end : thread_count)) released = true;
    }
    return released;
}

void refuse_to_wait_for_ever() {
    fault = where() + ": threads wait for ones that do not come:";
    for (State state : {AT_MEETING, AT_BLOCK_BARRIER, FINISHED}) {
        size_t count = 0;
        for (size_t i = 0; i < thread_count; ++i) count += threads[i].state == state;
        if (count) fault += " " + std::to_string(count) + " " + STATES[state] + ";";
    }
}

void run_block() {
    for (const Range& variable : kernel->shared_variables)
        memset(reinterpret_cast<void*>(variable.begin), POISON, variable.end - variable.begin);
    for (size_t i = 0; i < thread_count; ++i) threads[i].state = RUNNABLE;
    while (fault.empty() && !all_are(FINISHED)) {
        const bool upwards = rounds++ % 2 == 0;
        for (size_t i = 0; i < thread_count && fault.empty(); ++i) {
            const size_t which = upwards ? i : thread_count - 1 - i;
            if (threads[which].state == RUNNABLE) resume(which);
        }
        if (!fault.empty() || release_waves() || all_are(FINISHED)) continue;
        if (!all_are(AT_BLOCK_BARRIER)) return refuse_to_wait_for_ever();
        for (size_t i = 0; i < thread_count; ++i) threads[i].state = RUNNABLE;
    }
}

// Finds what an address lies in, if a kernel may touch that: device memory, a shared variable, the thread's indices.
Range find(uintptr_t address, size_t size) {
    const Range allocation = allocation_at(address, place.device);
    if (allocation.holds(address, size)) return allocation;
    for (const Range& variable : kernel->shared_variables)
        if (variable.holds(address, size)) return variable;
    for (const Index* index : {&threadIdx, &blockIdx, &blockDim, &gridDim}) {
        const uintptr_t begin = reinterpret_cast<uintptr_t>(index);
        const Range whole = {begin, begin + sizeof(Index)};
        if (whole.holds(address, size)) return whole;
    }
    return {};
}

// noinline: check is called at every load and store, and would save the registers of what it rarely does.
[[gnu::noinline]] void check_elsewhere(uintptr_t address, size_t size, const char* what) {
    last_hit = find(address, size);
    if (last_hit.end) return;
    std::string message = std::string(what) + " " + std::to_string(size) + " bytes where it may not";
    const Range allocation = allocation_at(address, place.device);
    if (allocation.end) {
        message += ", at byte " + std::to_string(address - allocation.begin) + " of an allocation of ";
        message += std::to_string(allocation.end - allocation.begin) + " bytes";
    }
    fail(message);
}

void check(uintptr_t address, size_t size, const char* what) {
    if (!stack.holds(address, size) && !last_hit.holds(address, size)) check_elsewhere(address, size, what);
}

}  // namespace

void meet(Operation operation, void* given) {
    threads[current].operation = operation;
    threads[current].given = given;
    wait_as(AT_MEETING);
}

std::vector<Range> variables_within(Range addresses) {
    std::vector<Range> found;
    for (auto variable = variables.lower_bound(addresses.begin); variable != variables.end(); ++variable) {
        if (variable->first >= addresses.end) break;
        found.push_back({variable->first, variable->first + variable->second});
    }
    return found;
}

std::string run_grid(const Kernel& launched, Place where_to, Index grid, Index block, const std::string& packed) {
    kernel = &launched;
    place = where_to;
    arguments = packed.data();
    gridDim = grid;
    blockDim = block;
    thread_count = size_t{block.x} * block.y * block.z;
    if (threads.size() < thread_count) threads.resize(thread_count);
    for (unsigned i = 0; i < thread_count; ++i)
        threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    fault.clear();
    last_hit = {};
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x && fault.empty(); ++x) {
                blockIdx = {x, y, z};
                run_block();
            }
    if (!fault.empty()) threads.clear();  // their fibers stand in the midst of something
    return fault;
}

// What kernels call: declared in kernel.h.
#pragma GCC visibility push(default)
extern "C" {

void fakehip_block_barrier() { wait_as(AT_BLOCK_BARRIER); }

unsigned fakehip_lane() { return current % place.wave; }

// What the compiler has them call.
#define HOOKS(size)                                                                        \
    void __asan_load##size##_noabort(uintptr_t address) { check(address, size, "reads"); } \
    void __asan_store##size##_noabort(uintptr_t address) { check(address, size, "writes"); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
#undef HOOKS
void __asan_loadN_noabort(uintptr_t address, size_t size) { check(address, size, "reads"); }
void __asan_storeN_noabort(uintptr_t address, size_t size) { check(address, size, "writes"); }
void __asan_handle_no_return() {}

struct AlignedAccess {  // as GCC and clang lay it out
    const char* file;
    unsigned line, column;
    const void* type;
    unsigned char log_alignment, kind;
};

void __ubsan_handle_type_mismatch_v1_abort(const AlignedAccess* access, uintptr_t address) {
    fail("touches memory at " + std::to_string(address % 256) + " modulo 256, not at a multiple of " +
         std::to_string(1 << access->log_alignment) + ", " + access->file + ":" + std::to_string(access->line));
}

struct GlobalVariable {  // as GCC and clang lay it out
    uintptr_t address;
    size_t size, size_with_red_zone;
    const char *name, *module;
    size_t has_dynamic_start;
    const void *location, *indicator;
};

void __asan_register_globals(const GlobalVariable* listed, size_t count) {
    for (size_t i = 0; i < count; ++i) variables[listed[i].address] = listed[i].size;
}

void __asan_unregister_globals(const GlobalVariable*, size_t) {}
}

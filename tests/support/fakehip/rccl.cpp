// The stand-in's RCCL: the calls that hipgpt/compute/backends/nccl.py makes, with the names and numbers of RCCL's nccl.h.
// Ranks are processes of one machine. They meet in shared memory that is named after the unique id, and each has a slot
// there. A collective takes as many turns as its bytes take slots, with all ranks at a barrier before and after each.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fakehip.h"

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum Result { SUCCESS = 0, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5 };
enum { FLOAT32 = 7, BFLOAT16 = 9, SUM = 0 };
constexpr size_t SLOT_BYTES = 4096;  // so small that tests take several turns
constexpr int MOST_RANKS = 8, POLL_MICROSECONDS = 20, MOST_POLLS = 3'000'000;

struct UniqueId {
    char internal[128];
};

struct Meeting {  // all zero at first
    std::atomic<int> arrived;
    std::atomic<unsigned> turn;
    alignas(64) unsigned char slots[MOST_RANKS][SLOT_BYTES];
};

struct Communicator {
    Meeting* meeting;
    int size, rank, device;

    bool wait_for_all() const {
        const unsigned turn = meeting->turn;
        if (meeting->arrived.fetch_add(1) + 1 == size) {
            meeting->arrived = 0;
            ++meeting->turn;
            return true;
        }
        for (int poll = 0; meeting->turn == turn; ++poll) {
            if (poll == MOST_POLLS) return false;
            usleep(POLL_MICROSECONDS);
        }
        return true;
    }
};

int groups_open = 0;
std::vector<std::pair<void*, std::function<bool()>>> grouped;  // stream and work

size_t bytes_of(int type) { return type == FLOAT32 ? 4 : 2; }

float widened(uint16_t bits) {
    const uint32_t word = uint32_t{bits} << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

uint16_t narrowed(float value) {  // finite, to nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

// The sum over all ranks, in their order.
void add_slots(const Communicator& all, unsigned char* target, size_t bytes, int type) {
    for (size_t at = 0; at < bytes; at += bytes_of(type)) {
        float sum = 0;
        for (int rank = 0; rank < all.size; ++rank) {
            const unsigned char* given = all.meeting->slots[rank] + at;
            sum += type == FLOAT32 ? *reinterpret_cast<const float*>(given)
                                   : widened(*reinterpret_cast<const uint16_t*>(given));
        }
        if (type == FLOAT32)
            memcpy(target + at, &sum, 4);
        else
            *reinterpret_cast<uint16_t*>(target + at) = narrowed(sum);
    }
}

// Submits, for each turn: every rank fills its slot, and takes what it needs of all slots.
Result submit(const void* send, void* receive, size_t count, int type, int root, const Communicator& all, void* stream,
              bool reduces) {
    const size_t bytes = count * bytes_of(type);
    const auto inside = [&](const void* memory) {
        const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
        return allocation_at(address, all.device).holds(address, bytes);
    };
    if ((type != FLOAT32 && type != BFLOAT16) || root < 0 || root >= all.size || !inside(send) || !inside(receive))
        return INVALID_ARGUMENT;
    const auto* from = static_cast<const unsigned char*>(send);
    auto* to = static_cast<unsigned char*>(receive);
    const auto work = [=] {
        for (size_t done = 0; done < bytes; done += SLOT_BYTES) {
            const size_t part = std::min(SLOT_BYTES, bytes - done);
            memcpy(all.meeting->slots[all.rank], from + done, part);
            if (!all.wait_for_all()) return false;
            if (reduces && all.rank == root) add_slots(all, to + done, part, type);
            if (!reduces) memcpy(to + done, all.meeting->slots[root], part);
            if (!all.wait_for_all()) return false;
        }
        return true;
    };
    if (groups_open) {
        grouped.emplace_back(stream, work);
        return SUCCESS;
    }
    return submit_to(stream, work) ? SUCCESS : SYSTEM_ERROR;
}

}  // namespace

API const char* ncclGetErrorString(int result) {
    return result == INVALID_ARGUMENT ? "invalid argument" : result == INVALID_USAGE ? "invalid usage" : "system error";
}

API int ncclGetUniqueId(UniqueId* id) {
    static int made = 0;
    memset(id, 0, sizeof *id);
    const std::string name = "/fakehip-rccl-" + std::to_string(getpid()) + "-" + std::to_string(made++);
    strcpy(id->internal, name.c_str());
    const int file = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
    const bool sized = file >= 0 && !ftruncate(file, sizeof(Meeting));
    if (file >= 0) close(file);
    return sized ? SUCCESS : SYSTEM_ERROR;
}

API int ncclCommInitRank(Communicator** communicator, int size, UniqueId id, int rank) {
    if (size < 1 || size > MOST_RANKS || rank < 0 || rank >= size) return INVALID_ARGUMENT;
    const int file = shm_open(id.internal, O_RDWR, 0600);
    if (file < 0) return INVALID_ARGUMENT;
    void* memory = mmap(nullptr, sizeof(Meeting), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory == MAP_FAILED) return SYSTEM_ERROR;
    *communicator = new Communicator{static_cast<Meeting*>(memory), size, rank, device_in_use()};
    if (!(*communicator)->wait_for_all()) return SYSTEM_ERROR;
    if (rank == 0) shm_unlink(id.internal);
    return SUCCESS;
}

API int ncclCommGetAsyncError(Communicator*, int* state) {
    *state = SUCCESS;
    return SUCCESS;
}

API int ncclReduce(const void* send, void* receive, size_t count, int type, int operation, int root,
                   Communicator* communicator, void* stream) {
    if (operation != SUM) return INVALID_ARGUMENT;
    return submit(send, receive, count, type, root, *communicator, stream, true);
}

API int ncclBroadcast(const void* send, void* receive, size_t count, int type, int root, Communicator* communicator,
                      void* stream) {
    return submit(send, receive, count, type, root, *communicator, stream, false);
}

API int ncclGroupStart() {
    ++groups_open;
    return SUCCESS;
}

// Nothing of a group starts before its end.
API int ncclGroupEnd() {
    if (!groups_open) return INVALID_USAGE;
    if (--groups_open) return SUCCESS;
    const auto all = std::exchange(grouped, {});
    for (const auto& [stream, work] : all)
        if (!submit_to(stream, work)) return SYSTEM_ERROR;
    return SUCCESS;
}

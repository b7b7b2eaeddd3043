// The stand-in's HIP runtime: the calls that hipgpt/compute/backends/hip.py makes, with HIP's names, numbers and
// refusals. Work is done when it is asked for; what is captured is done when its graph is launched.
#include <dlfcn.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "fakehip.h"

#define API extern "C" __attribute__((visibility("default")))

namespace {

enum Error {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONFIGURATION = 9,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    NO_BINARY_FOR_GPU = 209,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    STREAM_CAPTURE_UNSUPPORTED = 900,
    STREAM_CAPTURE_UNJOINED = 904
};
constexpr unsigned MAXIMUM_THREADS = 1024;

std::string last_fault = "no fault yet";  // a kernel's, in words

using Graph = std::vector<std::function<Error()>>;

struct Stream;

struct Capture {
    Graph graph;
    std::vector<Stream*> joined;  // the other streams that an event brought into it
};

struct Stream {
    int device;
    std::shared_ptr<Capture> capturing;
    bool waited_for = true;  // by the capture that it joined
};

struct Event {
    Stream* stream;
    std::shared_ptr<Capture> capturing;
};

int current_device = 0;
int graphs_alive = 0;

std::vector<std::string> split(const char* words) {
    std::vector<std::string> found;
    std::istringstream stream(words ? words : "");
    for (std::string word; std::getline(stream, word, ',');) found.push_back(word);
    return found;
}

// The chips that FAKEHIP_CHIPS lists, such as gfx90a:sramecc+:xnack-,gfx1100; of these, in its order, those whose numbers
// HIP_VISIBLE_DEVICES lists, up to the first that is none, as HIP does it.
const std::vector<std::string>& chips() {
    static const std::vector<std::string> visible = [] {
        const std::vector<std::string> all = split(getenv("FAKEHIP_CHIPS"));
        if (!getenv("HIP_VISIBLE_DEVICES")) return all;
        std::vector<std::string> chosen;
        for (const std::string& number : split(getenv("HIP_VISIBLE_DEVICES"))) {
            if (number.size() != 1 || number[0] < '0' || number[0] - '0' >= static_cast<int>(all.size())) break;
            chosen.push_back(all[number[0] - '0']);
        }
        return chosen;
    }();
    return visible;
}

unsigned wave_of(int device) { return chips()[device].rfind("gfx9", 0) == 0 ? 64 : 32; }

struct Properties {  // of hipDeviceProp_tR0600
    char name[256], not_set[28];
    size_t memory_bytes, shared_bytes;
    int registers, wave;
    char not_set_either[848], arch[256];
};

Error submit(Stream* stream, std::function<Error()> work) {
    if (!stream->capturing) return work();
    stream->capturing->graph.push_back(std::move(work));
    stream->waited_for = false;
    return SUCCESS;
}

Error copy(const void* device, void* target, const void* source, size_t size, const Stream* stream) {
    if (stream->capturing) return STREAM_CAPTURE_UNSUPPORTED;
    const uintptr_t address = reinterpret_cast<uintptr_t>(device);
    if (!allocation_at(address, stream->device).holds(address, size)) return INVALID_VALUE;
    memcpy(target, source, size);
    return SUCCESS;
}

template <class T>
T symbol(void* library, const std::string& name) {
    return reinterpret_cast<T>(dlsym(library, name.c_str()));
}

}  // namespace

int device_in_use() { return current_device; }

bool submit_to(void* stream, const std::function<bool()>& work) {
    const auto done = [=] { return work() ? SUCCESS : ILLEGAL_ADDRESS; };
    return submit(static_cast<Stream*>(stream), done) == SUCCESS;
}

API const char* hipGetErrorString(int error) {
    switch (error) {
        case SUCCESS:
            return "no error";
        case INVALID_VALUE:
            return "invalid argument";
        case OUT_OF_MEMORY:
            return "out of memory";
        case INVALID_CONFIGURATION:
            return "invalid configuration argument";
        case NO_DEVICE:
            return "no ROCm-capable device is detected";
        case INVALID_DEVICE:
            return "invalid device ordinal";
        case NO_BINARY_FOR_GPU:
            return "no kernel image is available for execution on the device";
        case NOT_FOUND:
            return "named symbol not found";
        case ILLEGAL_ADDRESS:
            return last_fault.c_str();
        case STREAM_CAPTURE_UNSUPPORTED:
            return "operation not permitted when stream is capturing";
        default:
            return "an error that the stand-in does not know";
    }
}

// Kernels' libraries find fakehip_* and the compiler's hooks in this one, which Python loads for itself only.
API int hipInit(unsigned) {
    Dl_info here;
    dladdr(reinterpret_cast<void*>(hipInit), &here);
    if (!dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_GLOBAL)) return INVALID_VALUE;
    return chips().empty() ? NO_DEVICE : SUCCESS;
}

API int hipRuntimeGetVersion(int* version) {
    *version = 0;
    return SUCCESS;
}

API int hipSetDevice(int device) {
    if (device < 0 || device >= static_cast<int>(chips().size())) return INVALID_DEVICE;
    current_device = device;
    return SUCCESS;
}

API int hipGetDeviceCount(int* count) {
    *count = chips().size();
    return chips().empty() ? NO_DEVICE : SUCCESS;
}

API int hipGetDevicePropertiesR0600(Properties* properties, int device) {
    if (device < 0 || device >= static_cast<int>(chips().size())) return INVALID_DEVICE;
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "stand-in");
    strcpy(properties->arch, chips()[device].c_str());
    properties->wave = wave_of(device);
    properties->memory_bytes = MEMORY_BYTES;
    return SUCCESS;
}

API int hipMalloc(void** address, size_t size) {
    *address = allocate(size, current_device);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

API int hipFree(void* address) { return release(address) ? SUCCESS : INVALID_VALUE; }

API int hipMemGetInfo(size_t* free, size_t* total) {
    *free = free_bytes(current_device);
    *total = MEMORY_BYTES;
    return SUCCESS;
}

API int hipStreamCreate(Stream** stream) {
    *stream = new Stream{current_device, nullptr};
    return SUCCESS;
}

API int hipStreamCreateWithFlags(Stream** stream, unsigned) { return hipStreamCreate(stream); }

API int hipEventCreateWithFlags(Event** event, unsigned) {
    *event = new Event{};
    return SUCCESS;
}

API int hipEventRecord(Event* event, Stream* stream) {
    *event = {stream, stream->capturing};
    return SUCCESS;
}

// Work that is not captured runs at once, so there is nothing to wait for.
API int hipStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    if (!event->capturing) return SUCCESS;
    if (!stream->capturing) {
        stream->capturing = event->capturing;
        stream->capturing->joined.push_back(stream);
    }
    event->stream->waited_for = true;
    return SUCCESS;
}

API int hipStreamSynchronize(Stream* stream) { return stream->capturing ? STREAM_CAPTURE_UNSUPPORTED : SUCCESS; }

API int hipStreamQuery(Stream* stream) { return hipStreamSynchronize(stream); }

API int hipMemcpyHtoDAsync(void* target, const void* source, size_t size, Stream* stream) {
    return copy(target, target, source, size, stream);
}

API int hipMemcpyDtoHAsync(void* target, const void* source, size_t size, Stream* stream) {
    return copy(source, target, source, size, stream);
}

API int hipMemsetAsync(void* target, int value, size_t size, Stream* stream) {
    const Range allocation = allocation_at(reinterpret_cast<uintptr_t>(target), stream->device);
    if (!allocation.holds(reinterpret_cast<uintptr_t>(target), size)) return INVALID_VALUE;
    return submit(stream, [=] {
        memset(target, value, size);
        return SUCCESS;
    });
}

API int hipModuleLoadData(void** module, const char* image) {
    if (memcmp(image, "FAKEHIP\n", 8)) return NO_BINARY_FOR_GPU;
    uint64_t size;
    memcpy(&size, image + 8, 8);
    char path[] = "/tmp/fakehip-XXXXXX";
    const int file = mkstemp(path);
    const bool written = file >= 0 && write(file, image + 16, size) == static_cast<ssize_t>(size);
    close(file);
    *module = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (written && !*module) fprintf(stderr, "stand-in: %s\n", dlerror());
    unlink(path);
    return *module ? SUCCESS : NO_BINARY_FOR_GPU;
}

API int hipModuleGetFunction(Kernel** kernel, void* module, const char* name) {
    const auto run = symbol<void (*)(const char*)>(module, std::string("fakehip_run_") + name);
    if (!run) return NOT_FOUND;
    const auto begin = symbol<uintptr_t (*)()>(module, "fakehip_shared_begin");
    const auto end = symbol<uintptr_t (*)()>(module, "fakehip_shared_end");
    const size_t argument_bytes = *symbol<const size_t*>(module, std::string("fakehip_bytes_") + name);
    *kernel = new Kernel{name, run, argument_bytes, variables_within({begin(), end()})};
    return SUCCESS;
}

// extra: {BUFFER_POINTER, arguments, BUFFER_SIZE, their size, END}
API int hipModuleLaunchKernel(const Kernel* kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                              unsigned threads_x, unsigned threads_y, unsigned threads_z, unsigned shared_bytes,
                              Stream* stream, void** parameters, void** extra) {
    const uint64_t threads = uint64_t{threads_x} * threads_y * threads_z;
    const uint64_t blocks = uint64_t{grid_x} * grid_y * grid_z;
    if (!threads || threads > MAXIMUM_THREADS || !blocks || shared_bytes) return INVALID_CONFIGURATION;
    if (parameters || !extra || *static_cast<size_t*>(extra[3]) != kernel->argument_bytes) return INVALID_VALUE;
    const std::string arguments(static_cast<const char*>(extra[1]), kernel->argument_bytes);
    return submit(stream, [=] {
        const Place place = {stream->device, wave_of(stream->device)};
        const std::string fault =
            run_grid(*kernel, place, {grid_x, grid_y, grid_z}, {threads_x, threads_y, threads_z}, arguments);
        if (!fault.empty()) last_fault = fault;
        return fault.empty() ? SUCCESS : ILLEGAL_ADDRESS;
    });
}

API int hipStreamBeginCapture(Stream* stream, int) {
    stream->capturing = std::make_shared<Capture>();
    return SUCCESS;
}

API int hipStreamEndCapture(Stream* stream, Graph** graph) {
    const std::shared_ptr<Capture> capture = std::exchange(stream->capturing, nullptr);
    if (!capture) return INVALID_VALUE;
    bool all_waited_for = true;
    for (Stream* other : capture->joined) {
        all_waited_for = all_waited_for && other->waited_for;
        other->capturing = nullptr;
    }
    if (!all_waited_for) return STREAM_CAPTURE_UNJOINED;
    *graph = new Graph(std::move(capture->graph));
    ++graphs_alive;
    return SUCCESS;
}

API int hipGraphInstantiateWithFlags(Graph** executable, const Graph* graph, unsigned long long) {
    *executable = new Graph(*graph);
    ++graphs_alive;
    return SUCCESS;
}

API int hipGraphDestroy(Graph* graph) {
    delete graph;
    --graphs_alive;
    return SUCCESS;
}

API int hipGraphExecDestroy(Graph* executable) { return hipGraphDestroy(executable); }

// For tests: graphs, and executable ones, that were not destroyed.
API int fakehip_graphs_alive() { return graphs_alive; }

API int hipGraphLaunch(const Graph* executable, Stream* stream) {
    for (const auto& work : *executable)
        if (const Error error = submit(stream, work)) return error;
    return SUCCESS;
}

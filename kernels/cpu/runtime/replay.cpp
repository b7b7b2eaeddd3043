// replay: calls the kernels of a plan one after another, by the slots of runtime/call.h. Not an op.
#include <cstdint>

struct Call {
    void (*kernel)(const uint64_t* slots);
    const uint64_t* slots;
};

extern "C" void replay(const Call* calls, int64_t count) {
    for (const Call* call = calls; call < calls + count; ++call) call->kernel(call->slots);
}

// How a plan calls kernels: all by one signature, each argument in a slot of eight bytes, so that replay.cpp runs a whole plan.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

template <class T>
T taken(const uint64_t& slot) {
    T value;
    memcpy(&value, &slot, sizeof value);
    return value;
}

template <class... T, size_t... PLACE>
void call_by_slots(void (*kernel)(T...), const uint64_t* slots, std::index_sequence<PLACE...>) {
    kernel(taken<T>(slots[PLACE])...);
}

template <class... T>
void call_by_slots(void (*kernel)(T...), const uint64_t* slots) {
    call_by_slots(kernel, slots, std::index_sequence_for<T...>());
}

#define CALLABLE(kernel) \
    extern "C" void call_##kernel(const uint64_t* slots) { call_by_slots(kernel, slots); }

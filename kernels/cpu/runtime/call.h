// How a plan calls kernels: all by one signature, each argument in a slot of eight bytes, so that replay.cpp can run a
// whole plan in one call from Python.
#pragma once
#include <cstdint>
#include <cstring>
#include <utility>

template <class T>
T value_in(const uint64_t& slot) {
    T value;
    memcpy(&value, &slot, sizeof value);
    return value;
}

template <class... T, size_t... INDEX>
void call_by_slots(void (*kernel)(T...), const uint64_t* slots, std::index_sequence<INDEX...>) {
    kernel(value_in<T>(slots[INDEX])...);
}

template <class... T>
void call_by_slots(void (*kernel)(T...), const uint64_t* slots) {
    call_by_slots(kernel, slots, std::index_sequence_for<T...>());
}

#define CALLABLE(kernel) \
    extern "C" void call_##kernel(const uint64_t* slots) { call_by_slots(kernel, slots); }

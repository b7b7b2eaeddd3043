// Integer arithmetic of sizes.
#pragma once
#include <cstdint>

constexpr int64_t quotient_up(int64_t dividend, int64_t divisor) { return (dividend + divisor - 1) / divisor; }

// The caches of this processor.
#pragma once
#include <cstdint>
#include <cstdio>

// Bytes of the last cache that this processor's cores share, as Linux says; 0 if that is unknown.
inline int64_t last_cache_bytes() {
    static const int64_t bytes = [] {
        long kilobytes = 0;
        if (FILE* const file = std::fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r")) {
            if (std::fscanf(file, "%ldK", &kilobytes) != 1) kilobytes = 0;
            std::fclose(file);
        }
        return int64_t{kilobytes} << 10;
    }();
    return bytes;
}

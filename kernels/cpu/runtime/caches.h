// The caches of this processor.
#pragma once
#include <cstdint>
#include <cstdio>

// Bytes of the last cache, which several cores share, as Linux reports them; 0 if that is unknown. A test defines
// LAST_CACHE_BYTES, because its matrices fit every cache.
inline int64_t last_cache_bytes() {
#ifdef LAST_CACHE_BYTES
    return LAST_CACHE_BYTES;
#else
    static const int64_t bytes = [] {
        long kilobytes = 0;
        if (FILE* const file = std::fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "r")) {
            if (std::fscanf(file, "%ldK", &kilobytes) != 1) kilobytes = 0;
            std::fclose(file);
        }
        return int64_t{kilobytes} << 10;
    }();
    return bytes;
#endif
}

// Memory and tasks that the threads of output_layer.cpp share.
#pragma once
#include "cpu/output_layer_slice.h"
#include "cpu/runtime/parallel.h"
#include <vector>

// The packed chunk of the weight, by rows and by channels, which all threads read, and the threads' tasks for it.
// Threads pack the next chunk while others still read this one, so a team has two.
struct SharedChunk {
    PackedWord *by_rows, *by_channels;
    Tasks packing_rows, packing_channels, multiplying;

    explicit SharedChunk(int64_t threads) : packing_rows(threads), packing_channels(threads), multiplying(threads) {}
};
// The tokens of one thread: x as B micro-panels, and the panels. Any thread may take a panel's next chunk.
struct OwnedTokens {
    PackedWord* inputs;
    std::vector<TokenPanel> panels;
};
struct SharedOutputLayer {
    std::vector<OwnedTokens> tokens;  // by thread
    SharedChunk chunks[2];

    explicit SharedOutputLayer(int64_t threads) : tokens(threads), chunks{SharedChunk(threads), SharedChunk(threads)} {}
};

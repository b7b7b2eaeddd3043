// Memory and tasks that the threads of output_layer.cpp share.
#pragma once
#include "cpu/output_layer_slice.h"
#include "cpu/runtime/rounds.h"
#include <optional>
#include <vector>

// The packed chunk of the weight, by rows and by channels, which all threads read.
struct PackedChunk {
    PackedWord *by_rows, *by_channels;
};

// The tokens of one thread: x as B micro-panels, and the panels. Any thread may take a panel's next chunk.
struct OwnedTokens {
    PackedWord* inputs;
    std::vector<TokenPanel> panels;
};

struct SharedOutputLayer {
    std::vector<OwnedTokens> tokens;  // by thread
    PackedChunk chunks[MOST_BUFFERS];
    std::optional<Rounds> rounds;  // a round for each chunk

    explicit SharedOutputLayer(int64_t threads) : tokens(threads) {}
};

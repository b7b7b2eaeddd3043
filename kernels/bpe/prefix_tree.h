// The tokens of a vocabulary as a tree of their prefixes, by which the longest token that a text begins with is found.
//
// A prefix that is a token has the token's number as its node; any other prefix has a number above all tokens.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string_view>
#include <vector>
#include "bpe/huge_pages.h"
#include "bpe/tokens.h"
#include "bpe/word_key.h"

namespace bpe {

class PrefixTree {
   public:
    explicit PrefixTree(uint32_t tokens) : tokens_(tokens), next_node_(tokens) {}

    bool is_token(uint32_t node) const { return node < tokens_; }

    // The nodes of two bytes, and of one byte more than a node; NONE if no token begins so.
    uint32_t after_two(uint32_t first, uint32_t second) const { return two_bytes_[first * BYTES + second]; }
    uint32_t after(uint32_t node, unsigned char byte) const { return edge(node, byte).to; }

    // Adds a token of two bytes or more, and returns the longest token that it begins with. Tokens are added by size,
    // so none finds its own node taken.
    uint32_t insert(std::string_view bytes, uint32_t token) {
        uint32_t node = static_cast<unsigned char>(bytes[0]), prefix = NONE;
        for (size_t i = 1; i < bytes.size(); ++i) {
            if (is_token(node)) prefix = node;
            const unsigned char byte = static_cast<unsigned char>(bytes[i]);
            uint32_t next = edge(node, byte).to;
            if (next == NONE) {
                next = i + 1 == bytes.size() ? token : next_node_++;
                if (next >= 1 << 24) throw std::length_error("more than 2^24 prefixes of tokens");
                add_edge(node << 8 | byte, next);
                if (i == 1) two_bytes_[node * BYTES + byte] = next;
            }
            node = next;
        }
        return prefix;
    }

   private:
    struct Edge {
        uint32_t key = NONE, to = NONE;  // key: node << 8 | byte
    };

    // The edge from a node by a byte, or the free slot for it.
    const Edge& edge(uint32_t node, unsigned char byte) const {
        const uint32_t key = node << 8 | byte;
        for (size_t at = mixed(node) + byte;; ++at) {
            const Edge& found = edges_[at & (edges_.size() - 1)];
            if (found.key == key || found.key == NONE) return found;
        }
    }

    void add_edge(uint32_t key, uint32_t to) {
        if (4 * ++edge_count_ > 3 * edges_.size()) {
            Table<Edge> old(2 * edges_.size());  // empty, and twice as large
            old.swap(edges_);
            for (const Edge& one : old)
                if (one.key != NONE) const_cast<Edge&>(edge(one.key >> 8, one.key & 0xFF)) = one;
        }
        const_cast<Edge&>(edge(key >> 8, key & 0xFF)) = {key, to};
    }

    uint32_t tokens_, next_node_;
    std::vector<uint32_t> two_bytes_ = std::vector<uint32_t>(BYTES * BYTES, NONE);  // the first two steps from the root
    Table<Edge> edges_ = Table<Edge>(1024);
    size_t edge_count_ = 0;
};

}  // namespace bpe

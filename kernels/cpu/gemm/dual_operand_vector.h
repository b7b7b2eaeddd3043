// A matrix that is packed once and read by two GEMMs: as B (K = its rows) while it is produced, NR columns after NR
// columns, and later as A (K = its columns). For vectors it is stored in activations: blocks of MR rows, in each block
// panels of NR columns, row by row. The register tile reads its words in place, unless it makes f32 of bf16. If the matrix
// takes more than a quarter of the last cache, which other data and other cores need too, stores go past the caches.
#pragma once
#include "cpu/runtime/caches.h"
#include "cpu/select/gemm_tile.h"
#include "cpu/select/stream.h"
#include "cpu/select/convert.h"

class DualOperand {
   public:
    DualOperand(act* memory, int64_t rows, int64_t columns) : memory(memory), panels(padded(columns, NR) / NR) {
        const int64_t bytes = rows * panels * NR * static_cast<int64_t>(sizeof(act));
        streams = CAN_STREAM && last_cache_bytes() > 0 && bytes > last_cache_bytes() / 4;
    }

    // left and right: the NR columns of one row of a panel
    void put(int64_t panel, int64_t row, Vector left, Vector right) const {
        if (streams) return stream_row(at(panel, row), left, right);
        alignas(64) float values[NR];
        vector_at(values) = left;
        vector_at(values + LANES) = right;
        store(at(panel, row), values, NR);
    }
    void get(int64_t panel, int64_t row, Vector& left, Vector& right) const {
        left = load_vector(at(panel, row));
        right = load_vector(at(panel, row) + LANES);
    }

    friend PackedA pack_a_block(const DualOperand& a, PackedWord* copy, int64_t row, int64_t rows, int64_t column,
                                int64_t terms, int64_t /*columns*/) {
        constexpr int64_t SIZE = sizeof(act);
        if constexpr (WORD_TERMS * SIZE == sizeof(PackedWord)) {
            const char* const first = reinterpret_cast<const char*>(a.at(column / NR, row));
            return {first, NR * SIZE, 4, a.panels * PANEL_BLOCK * SIZE, NR / WORD_TERMS, PANEL_BLOCK * SIZE};
        }
        PackedA block{};
        for (int64_t r = 0; r < rows; r += MR)
            for (int64_t term = 0; term < terms; term += NR) {
                PackedWord* const words = copy + r / MR * a_panel_size(terms) + term / WORD_TERMS * MR;
                const Matrix panel_rows = {a.at((column + term) / NR, row + r), NR, 1};
                block = copy_a(words, panel_rows, std::min<int64_t>(MR, rows - r), std::min<int64_t>(NR, terms - term));
            }
        block.data = reinterpret_cast<const char*>(copy);
        block.panel_stride = a_panel_size(terms) * 4;
        return block;
    }

   private:
    static constexpr int64_t PANEL_BLOCK = MR * NR;  // elements of a panel in a block of rows

    act* at(int64_t panel, int64_t row) const {
        return memory + (row / MR * panels + panel) * PANEL_BLOCK + row % MR * NR;
    }
    act* memory;
    int64_t panels;
    bool streams;
};

// A matrix that is packed once and read by two GEMMs: as B (K = its rows) while it is produced, NR columns after NR
// columns, and later as A (K = its columns). For AMX it is stored as the tiles of A, which are read in place.
#pragma once
#include "cpu/select/gemm_tile.h"

class DualOperand {
   public:
    DualOperand(act* memory, int64_t rows, int64_t /*columns*/)
        : words(reinterpret_cast<PackedWord*>(memory)), panel_words(padded(rows, MR) * SPLITS * LANES) {}

    // left and right: the NR columns of one row of a panel
    void put(int64_t panel, int64_t row, Vector left, Vector right) const {
        const WordVector packed = words_from_line(left, right);
        for (int split = 0; split < SPLITS; ++split)
            vector_at(at(panel, row) + split * MR * LANES) = packed.split[split];
    }
    void get(int64_t panel, int64_t row, Vector& left, Vector& right) const {
        WordVector packed;
        for (int split = 0; split < SPLITS; ++split)
            packed.split[split] = vector_at(at(panel, row) + split * MR * LANES);
        line_from_words(packed, left, right);
    }

    friend PackedA pack_a_block(const DualOperand& a, PackedWord* /*copy*/, int64_t row, int64_t /*rows*/,
                                int64_t column, int64_t /*terms*/, int64_t /*columns*/) {
        return {reinterpret_cast<const char*>(a.at(column / NR, row)), LANES * 4, a.panel_words * 4,
                SPLITS * SPLIT_BYTES};
    }

   private:
    PackedWord* at(int64_t panel, int64_t row) const {
        return words + panel * panel_words + (row / MR * SPLITS * MR + row % MR) * LANES;
    }
    PackedWord* words;
    int64_t panel_words;
};

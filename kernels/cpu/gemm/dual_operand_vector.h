// A matrix that is packed once and read by two GEMMs: as B (K = its rows) while it is produced, NR columns after NR
// columns, and later as A (K = its columns). For vectors it is stored in activations, row by row of NR columns.
#pragma once
#include "cpu/select/convert.h"
#include "cpu/select/gemm_tile.h"

class DualOperand {
   public:
    // rows: of each panel of NR columns in memory
    DualOperand(act* memory, int64_t rows) : memory(memory), rows(rows) {}

    // left and right: the NR columns of one row of a panel
    void put(int64_t panel, int64_t row, Vector left, Vector right) const {
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
                                int64_t terms) {
        return pack_a(copy, {a.at(column / NR, row), NR, 1, (a.rows - 1) * NR}, rows, terms);
    }

   private:
    act* at(int64_t panel, int64_t row) const { return memory + (panel * rows + row) * NR; }
    act* memory;
    int64_t rows;
};

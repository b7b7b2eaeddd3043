// Columns of numbers that two products read: as B, whose terms are the rows, while they are made, a strip of PANEL columns at a
// time; and later as A, whose terms are the columns. They are kept by rows of a strip.
#pragma once
#include "cpu/select/convert.h"
#include "cpu/select/gemm_tile.h"

class Kept {
   public:
    // rows: of each strip of columns in memory
    Kept(act* memory, int64_t rows) : memory(memory), rows(rows) {}

    void put(int64_t strip, int64_t row, Vector left, Vector right) const {
        alignas(64) float values[PANEL];
        vector_at(values) = left;
        vector_at(values + LANES) = right;
        store(at(strip, row), values, PANEL);
    }
    void get(int64_t strip, int64_t row, Vector& left, Vector& right) const {
        left = load_vector(at(strip, row));
        right = load_vector(at(strip, row) + LANES);
    }

    friend Left left_of(const Kept& a, Word* copy, int64_t row, int64_t rows, int64_t column, int64_t terms) {
        return pack_left(copy, {a.at(column / PANEL, row), PANEL, 1, (a.rows - 1) * PANEL}, rows, terms);
    }

   private:
    act* at(int64_t strip, int64_t row) const { return memory + (strip * rows + row) * PANEL; }
    act* memory;
    int64_t rows;
};

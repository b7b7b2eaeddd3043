// Columns of numbers that two products read: as B, whose terms are the rows, while they are made, a strip of PANEL columns at a
// time; and later as A, whose terms are the columns. They are kept as A's tiles.
#pragma once
#include "cpu/select/gemm_tile.h"

class Kept {
   public:
    // rows: of each strip of columns in memory
    Kept(act* memory, int64_t rows) : words(reinterpret_cast<Word*>(memory)), strip_words(padded(rows, ROWS) * PARTS * LANES) {}

    void put(int64_t strip, int64_t row, Vector left, Vector right) const {
        const Parts parts = words_along(left, right);
        for (int part = 0; part < PARTS; ++part) vector_at(at(strip, row) + part * ROWS * LANES) = parts.part[part];
    }
    void get(int64_t strip, int64_t row, Vector& left, Vector& right) const {
        Parts parts;
        for (int part = 0; part < PARTS; ++part) parts.part[part] = vector_at(at(strip, row) + part * ROWS * LANES);
        terms_along(parts, left, right);
    }

    friend Left left_of(const Kept& a, Word* /*copy*/, int64_t row, int64_t /*rows*/, int64_t column, int64_t /*terms*/) {
        return {reinterpret_cast<const char*>(a.at(column / PANEL, row)), LANES * 4, a.strip_words * 4, PARTS * PART_BYTES};
    }

   private:
    Word* at(int64_t strip, int64_t row) const {
        return words + strip * strip_words + (row / ROWS * PARTS * ROWS + row % ROWS) * LANES;
    }
    Word* words;
    int64_t strip_words;
};

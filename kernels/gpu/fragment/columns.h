// What AMD's matrix units share: lane % 16 is the row i of an operand and the column of a sum. A chip says
//   TERMS, first_term(lane)   how many neighbouring terms k of an operand a lane holds, and from which on
//   SIZE, row(index, lane)    how many values of a sum a lane holds, each in a row of its own
//   ROOMY                     whether registers have room for what a kernel could read again from shared memory
//   multiply(a, b, sum)       the vendor's instruction
#pragma once
#include "tile.h"

template <class Chip>
struct ColumnFragment {
    static constexpr int SIZE = Chip::SIZE, SLOTS = SIZE, TERMS = Chip::TERMS;
    static constexpr bool ROOMY = Chip::ROOMY;
    using Operand = typename Chip::Operand;
    using Sum = typename Chip::Sum;

    static DEVICE_MEMBER int lane() { return threadIdx.x % WAVE; }
    static DEVICE_MEMBER constexpr int slot(int index) { return index; }
    static DEVICE_MEMBER int row(int slot) { return Chip::row(slot, lane()); }
    static DEVICE_MEMBER int column(int) { return lane() % 16; }

    // Over the lanes that hold one row: op(value, value of another lane), in a fixed order.
    template <class Op>
    static DEVICE_MEMBER float across_row(float value, const Op& op) {
        for (int mask = 8; mask > 0; mask /= 2) value = op(value, wave_exchange(value, mask));
        return value;
    }

    // Element (i, k) from row first_i + i and column first_k + k of a tile; both are multiples of 16.
    template <class Tile>
    static DEVICE_MEMBER Operand load(const Tile& tile, int first_i, int first_k) {
        constexpr int PIECE = TERMS < WIDTH ? TERMS : WIDTH;
        struct alignas(PIECE * 2) Piece {
            short element[PIECE];
        };
        const int own = opaque(lane());
        Operand operand;
        for (int k = 0; k < TERMS; k += PIECE) {
            const bf16* place = tile.at(first_i, own % 16, first_k + Chip::first_term(own) + k);
            const Piece piece = *reinterpret_cast<const Piece*>(place);
            for (int i = 0; i < PIECE; ++i) operand[k + i] = piece.element[i];
        }
        return operand;
    }

    // Element (i, k) from row first_k + k and column first_i + i of a tile.
    template <class Tile>
    static DEVICE_MEMBER Operand load_transposed(const Tile& tile, int first_i, int first_k) {
        const int own = opaque(lane());
        Operand operand;
        for (int k = 0; k < TERMS; ++k) operand[k] = tile.at(first_k, Chip::first_term(own) + k, first_i + own % 16)->bits;
        return operand;
    }

    // Rounds a sum to an operand, its row as i and its column as k. scratch: 16 x 16 elements of this wave.
    static DEVICE_MEMBER Operand pack(const Sum& sum, bf16* scratch) {
        const Tile<2> tile = {scratch};
        wave_barrier();
        for (int i = 0; i < SIZE; ++i) narrow(*tile.at(0, row(i), lane() % 16), sum.value[i]);
        wave_barrier();
        return load(tile, 0, 0);
    }

    static DEVICE_MEMBER Operand ones() {
        Operand operand;
        for (int k = 0; k < TERMS; ++k) operand[k] = 0x3F80;
        return operand;
    }

    // sum(i, j) += sum over k of a(i, k) * b(j, k)
    static DEVICE_MEMBER void multiply(Sum& sum, const Operand& a, const Operand& b) {
        Chip::multiply(a, b, sum);
        if constexpr (!ROOMY) sum.value[0] = opaque(sum.value[0]);  // now, not where the sum is used: operands are done with
    }
};

// The register layout of AMD's matrix instructions: lane % 16 is the row i of an operand and the column of a sum.
// A chip's header defines
//   OPERAND_K, first_k(lane)  how many neighbouring k of an operand a lane holds, and the first of them
//   SIZE, row(index, lane)    how many values of a sum a lane holds, each in a row of its own, and which row
//   MANY_REGISTERS            whether operands may stay in registers; otherwise kernels read shared memory again
//   multiply(a, b, sum)       the vendor's instruction
#pragma once
#include "gpu/mma/shared_tile.h"

template <class Chip>
struct AmdMma {
    // A lane holds SIZE values of a sum, in SLOTS different rows.
    static constexpr int SIZE = Chip::SIZE, SLOTS = SIZE, OPERAND_K = Chip::OPERAND_K;
    static constexpr bool MANY_REGISTERS = Chip::MANY_REGISTERS;
    using Operand = typename Chip::Operand;
    using Sum = typename Chip::Sum;

    static DEVICE_MEMBER unsigned lane() { return threadIdx.x % WAVE; }
    // The lane for an operand's address. Where registers are few, each load computes its own.
    static DEVICE_MEMBER unsigned address_lane() { return MANY_REGISTERS ? lane() : opaque(lane()) % WAVE; }
    static DEVICE_MEMBER constexpr int slot(int index) { return index; }
    static DEVICE_MEMBER int row(int slot) { return Chip::row(slot, lane()); }
    static DEVICE_MEMBER int column(int) { return lane() % 16; }

    // Reduces over the lanes that hold one row, by op(value, value of another lane), in a fixed order.
    template <class Op>
    static DEVICE_MEMBER float across_row(float value, const Op& op) {
        for (int mask = 8; mask > 0; mask /= 2) value = op(value, wave_exchange(value, mask));
        return value;
    }

    // Operand (i, k) = tile (first_i + i, first_k + k); both are multiples of 16.
    template <class Tile>
    static DEVICE_MEMBER Operand load(const Tile& tile, int first_i, int first_k) {
        constexpr int ACCESS = OPERAND_K < WIDTH ? OPERAND_K : WIDTH;
        struct alignas(ACCESS * 2) Elements {
            short element[ACCESS];
        };
        const unsigned own = address_lane();
        Operand operand;
        for (int k = 0; k < OPERAND_K; k += ACCESS) {
            const bf16* address = tile.at(first_i, own % 16, first_k + Chip::first_k(own) + k);
            const Elements elements = *reinterpret_cast<const Elements*>(address);
            for (int i = 0; i < ACCESS; ++i) operand[k + i] = elements.element[i];
        }
        return operand;
    }

    // Operand (i, k) = tile (first_k + k, first_i + i).
    template <class Tile>
    static DEVICE_MEMBER Operand load_transposed(const Tile& tile, int first_i, int first_k) {
        const unsigned own = address_lane();
        Operand operand;
        for (int k = 0; k < OPERAND_K; ++k)
            operand[k] = tile.at(first_k, Chip::first_k(own) + k, first_i + own % 16)->bits;
        return operand;
    }

    // Rounds a sum to an operand: its rows become i, its columns k. scratch: 16 x 16 elements of this wave.
    static DEVICE_MEMBER Operand pack(const Sum& sum, bf16* scratch) {
        const SharedTile<2> tile = {scratch};
        wave_barrier();
        for (int i = 0; i < SIZE; ++i) narrow(*tile.at(0, row(i), lane() % 16), sum.value[i]);
        wave_barrier();
        return load(tile, 0, 0);
    }

    static DEVICE_MEMBER Operand ones() {
        Operand operand;
        for (int k = 0; k < OPERAND_K; ++k) operand[k] = 0x3F80;
        return operand;
    }

    // sum(i, j) += sum over k of a(i, k) * b(j, k)
    static DEVICE_MEMBER void multiply(Sum& sum, const Operand& a, const Operand& b) {
        Chip::multiply(a, b, sum);
        // keeps the instruction here instead of where the sum is used, so that the operands' registers are free again
        if constexpr (!MANY_REGISTERS) sum.value[0] = opaque(sum.value[0]);
    }
};

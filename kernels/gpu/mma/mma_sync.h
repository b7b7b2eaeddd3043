// mma by NVIDIA's mma.sync, from sm_80 on: a wave multiplies 16 x 16 tiles, with operands in bf16 and sums in f32.
// PTX ISA, "Matrix fragments for mma.m16n8k16" and "ldmatrix".
#pragma once
#include "gpu/mma/shared_tile.h"

struct Mma {
    // A lane holds SIZE values of a sum, in SLOTS different rows.
    static constexpr int SIZE = 8, SLOTS = 2;

    // 16 rows i by 16 k, as four matrices of 8 x 8 at (0, 0), (8, 0), (0, 8), (8, 8).
    struct Operand {
        uint32_t pair[4];
    };
    // 16 columns j by 16 k of the right factor of a product, as four matrices at (0, 0), (0, 8), (8, 0), (8, 8): mma.sync
    // takes eight columns, and needs both of their matrices in neighbouring registers.
    struct OperandB {
        uint32_t pair[4];
    };
    struct Sum {
        float value[SIZE];
    };

    static DEVICE_MEMBER int lane() { return threadIdx.x % 32; }
    static DEVICE_MEMBER constexpr int slot(int index) { return index / 2 % 2; }
    static DEVICE_MEMBER int row(int slot) { return lane() / 4 + 8 * slot; }
    static DEVICE_MEMBER int column(int index) { return lane() % 4 * 2 + index % 2 + index / 4 * 8; }

    // Reduces over the lanes that hold one row, by op(value, value of another lane), in a fixed order.
    template <class Op>
    static DEVICE_MEMBER float across_row(float value, const Op& op) {
        value = op(value, wave_exchange(value, 1));
        return op(value, wave_exchange(value, 2));
    }

    // Operand (i, k) = tile (first_i + i, first_k + k); both are multiples of 16.
    template <class Tile>
    static DEVICE_MEMBER Operand load(const Tile& tile, int first_i, int first_k) {
        return matrices<Operand>(tile.at(first_i, lane() % 16, first_k + lane() / 16 * 8));
    }

    // Operand (i, k) = tile (first_k + k, first_i + i).
    template <class Tile>
    static DEVICE_MEMBER Operand load_transposed(const Tile& tile, int first_i, int first_k) {
        return transposed_matrices<Operand>(
            tile.at(first_k, lane() / 16 * 8 + lane() % 8, first_i + lane() / 8 % 2 * 8));
    }

    // OperandB (j, k) = tile (first_j + j, first_k + k).
    template <class Tile>
    static DEVICE_MEMBER OperandB load_b(const Tile& tile, int first_j, int first_k) {
        return matrices<OperandB>(tile.at(first_j, lane() / 16 * 8 + lane() % 8, first_k + lane() / 8 % 2 * 8));
    }

    // OperandB (j, k) = tile (first_k + k, first_j + j).
    template <class Tile>
    static DEVICE_MEMBER OperandB load_b_transposed(const Tile& tile, int first_j, int first_k) {
        return transposed_matrices<OperandB>(tile.at(first_k, lane() % 16, first_j + lane() / 16 * 8));
    }

    // Rounds a sum to an operand: its rows become i, its columns k. A lane holds both alike.
    static DEVICE_MEMBER Operand pack(const Sum& sum) {
        Operand operand;
        for (int i = 0; i < 4; ++i) operand.pair[i] = bf16_pair(sum.value[2 * i], sum.value[2 * i + 1]);
        return operand;
    }

    static DEVICE_MEMBER Operand ones() { return {{0x3F803F80u, 0x3F803F80u, 0x3F803F80u, 0x3F803F80u}}; }

    // sum(i, j) += sum over k of a(i, k) * b(j, k)
    static DEVICE_MEMBER void multiply(Sum& sum, const Operand& a, const Operand& b) {
        multiply(sum, a, OperandB{{b.pair[0], b.pair[2], b.pair[1], b.pair[3]}});
    }
    static DEVICE_MEMBER void multiply(Sum& sum, const Operand& a, const OperandB& b) {
        for (int half = 0; half < 2; ++half) {
            float* c = sum.value + 4 * half;
            asm volatile(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                "{%0, %1, %2, %3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(a.pair[0]), "r"(a.pair[1]), "r"(a.pair[2]), "r"(a.pair[3]), "r"(b.pair[2 * half]),
                  "r"(b.pair[2 * half + 1]));
        }
    }

   private:
    // Four matrices, eight lanes each give the addresses of one's rows.
    template <class T>
    static DEVICE_MEMBER T matrices(const bf16* row) {
        T found;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(found.pair[0]), "=r"(found.pair[1]), "=r"(found.pair[2]), "=r"(found.pair[3])
                     : "r"(shared_address(row))
                     : "memory");
        return found;
    }
    template <class T>
    static DEVICE_MEMBER T transposed_matrices(const bf16* row) {
        T found;
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(found.pair[0]), "=r"(found.pair[1]), "=r"(found.pair[2]), "=r"(found.pair[3])
                     : "r"(shared_address(row))
                     : "memory");
        return found;
    }
};

// AMD's matrix unit, `Unit`, tiles of bf16 that feed it, and its operands.
//
// A unit computes sum(i, j) += sum over k of a(i, k) b(j, k) for 16 i, 16 j and STEP_K k. Lane l holds
// a(l % 16, k) and b(l % 16, k) for HELD_K neighbouring k from first_k(l) on, and of a sum column l % 16 with SIZE rows.
// Each chip lays out the rows of sums in its own way. So tiles of `a` are stored in the unit's order: place_of(i) is
// where row i is stored, row_at(place) the other way round, PLACE_STEP the places between neighbours of a multiple of 4.
// Then a lane's values of TILES sums in turn, a segment, are WIDTH neighbouring i from l / 16 * WIDTH on.
#pragma once
#include "gpu/simt/vector_io.h"
#if MMA_MFMA
#include "gpu/amd/mfma.h"
#elif MMA_WMMA_GFX11
#include "gpu/amd/wmma_gfx11.h"
#elif MMA_WMMA_GFX12
#include "gpu/amd/wmma_gfx12.h"
#else
#error "no matrix unit is chosen"
#endif

constexpr int TILES = WIDTH / Unit::SIZE;                 // sums of a segment
constexpr int SEGMENT_ROWS = 16 * TILES;                  // i of a segment, of all lanes
typedef uint32_t Chunk __attribute__((vector_size(16)));  // WIDTH elements; a class would go through private memory
typedef uint32_t HalfChunk __attribute__((vector_size(8)));

// An operand in the parts that one access moves.
union OperandChunks {
    Chunk chunk[Unit::HELD_K / WIDTH];
    Unit::Operand operand;
};

DEVICE unsigned lane_of_wave() { return threadIdx.x % WAVE; }

// Rows i of K neighbouring k in shared memory. Chunks are permuted, so that no access of a main loop has bank conflicts:
// tests/support/amd/lds.py counts them. Each of the five lowest bits of a row's number moves the row's chunks by XOR with
// a hexadecimal digit of PERMUTATION, the lowest bit with the last digit.
//
// So an element's offset is an XOR of what each bit of its row and of its k contributes. A thread computes that of its
// first element once, and hides it by `opaque`, because clang would compute the offsets of all others before a loop. An
// access adds the constant rest: one instruction for each different XOR, none for the rows of a multiple of 32.
template <int K>
struct OperandTile {
    static constexpr unsigned CHUNKS = K / WIDTH, ROWS_OF_A_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1;  // lines of all banks
    static constexpr unsigned PERMUTATION = Unit::permutation(CHUNKS);

    static DEVICE_MEMBER unsigned permutation(unsigned row) {
        unsigned moved = 0;
#pragma unroll
        for (int bit = 0; bit < 5; ++bit)
#pragma unroll
            for (int to = 0; to < 4; ++to)
                if (PERMUTATION >> (4 * bit + to) & 1) moved ^= (row >> bit & 1) << to;
        return moved;
    }
    // In bytes.
    static DEVICE_MEMBER unsigned offset(unsigned row, unsigned k) {
        return ((row * CHUNKS + k / WIDTH) ^ permutation(row)) * (WIDTH * 2) + k % WIDTH * 2;
    }
    // Element (row, k) after the one at `first`, the offset of a row and a k that have no bits in common with these.
    template <class T>
    static DEVICE_MEMBER T* at(bf16* tile, unsigned first, unsigned row, unsigned k) {
        const unsigned in_line = row % ROWS_OF_A_LINE, lines = row - in_line;
        char* moved = reinterpret_cast<char*>(tile) + (first ^ offset(in_line, k) ^ permutation(lines) * (WIDTH * 2));
        return reinterpret_cast<T*>(moved + lines * K * 2);
    }

    // The offset of the lane's first element of an operand.
    static DEVICE_MEMBER unsigned of_lane() {
        return opaque(offset(lane_of_wave() % 16, Unit::first_k(lane_of_wave())));
    }
    // The operand of rows first_i + 0 ... 15 and k from first_k on, multiples of 16 and STEP_K. own: of_lane().
    static DEVICE_MEMBER Unit::Operand load(const bf16* tile, unsigned own, int first_i, int first_k) {
        OperandChunks read;
#pragma unroll
        for (int c = 0; c < Unit::HELD_K / WIDTH; ++c)
            read.chunk[c] = *at<const Chunk>(const_cast<bf16*>(tile), own, first_i, first_k + c * WIDTH);
        return read.operand;
    }
    // Stores an operand where `load` finds it.
    static DEVICE_MEMBER void store(bf16* tile, unsigned own, int first_i, int first_k, const Unit::Operand& operand) {
        OperandChunks written;
        written.operand = operand;
#pragma unroll
        for (int c = 0; c < Unit::HELD_K / WIDTH; ++c)
            *at<Chunk>(tile, own, first_i, first_k + c * WIDTH) = written.chunk[c];
    }
};

DEVICE Unit::Operand operand_of_ones() {
    Unit::Operand ones;
    for (int k = 0; k < Unit::HELD_K; ++k) ones[k] = 0x3F80;
    return ones;
}

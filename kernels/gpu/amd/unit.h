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

// Rows i of K neighbouring k in shared memory. The chunks of a row are permuted, so that eight neighbouring rows have the
// same chunk in eight different groups of banks, and so that Transposer's stores of every fourth row are spread too. The
// permutation repeats after 16 rows: then the lane's part of an address is the same for all operands of a tile.
template <int K>
struct OperandTile {
    static constexpr int CHUNKS = K / WIDTH;
    static constexpr int ROWS_OF_A_LINE = CHUNKS < 8 ? 8 / CHUNKS : 1, MASK = CHUNKS < 8 ? CHUNKS - 1 : 7;

    // The offset in elements of a chunk.
    static DEVICE_MEMBER unsigned offset(unsigned row, unsigned chunk) {
        const unsigned permutation = (row / ROWS_OF_A_LINE ^ row / 8 % 2) & MASK;
        return row * K + (chunk ^ permutation) * WIDTH;
    }

    // The operand of rows first_i + 0 ... 15 and k from first_k on, multiples of 16 and STEP_K. lane: of the wave; a
    // loop that has no registers for addresses hides it by `opaque` in every turn.
    static DEVICE_MEMBER Unit::Operand load(const bf16* tile, int first_i, int first_k,
                                            unsigned lane = lane_of_wave()) {
        OperandChunks read;
#pragma unroll
        for (int c = 0; c < Unit::HELD_K / WIDTH; ++c) {
            const unsigned chunk = (first_k + Unit::first_k(lane)) / WIDTH + c;
            read.chunk[c] = *reinterpret_cast<const Chunk*>(tile + first_i * K + offset(lane % 16, chunk));
        }
        return read.operand;
    }
    // Stores an operand where `load` finds it.
    static DEVICE_MEMBER void store(bf16* tile, int first_i, int first_k, const Unit::Operand& operand) {
        const unsigned lane = lane_of_wave();
        OperandChunks written;
        written.operand = operand;
#pragma unroll
        for (int c = 0; c < Unit::HELD_K / WIDTH; ++c) {
            const unsigned chunk = (first_k + Unit::first_k(lane)) / WIDTH + c;
            *reinterpret_cast<Chunk*>(tile + first_i * K + offset(lane % 16, chunk)) = written.chunk[c];
        }
    }
};

DEVICE Unit::Operand operand_of_ones() {
    Unit::Operand ones;
    for (int k = 0; k < Unit::HELD_K; ++k) ones[k] = 0x3F80;
    return ones;
}

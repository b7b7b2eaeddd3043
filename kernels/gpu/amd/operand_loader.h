// Loads the operands of AMD's GEMM from global into shared memory, a stage of K after another. A stage is fetched into
// registers, all of its loads at once, while the one before is multiplied; `put` stores it in a tile afterwards.
// Fetching needs no test: rows beyond the end are replaced by the last one, and their sums are not stored. A stage that
// is not whole, or whose rows are not aligned for vector loads, is loaded by `copy`, element by element.
//
// Where a stage begins is the same for all lanes, so it is kept in scalar registers, where advancing costs nothing.
// `opaque` keeps the compiler from computing addresses ahead of where they are needed: those of `copy` would cost every
// stage, and a fetch adds its 32-bit offset to a scalar address without an instruction only where it sees both.
#pragma once
#include "gpu/amd/unit.h"
#include "gpu/gemm/matrix.h"

// What both loaders know. ROWS: rows i of a tile, from first_row on; k from first_k on.
struct Source {
    Matrix matrix;
    int64_t first_row, rows, k, end_k;

    // Element (first_row + i, k + more_k) of a matrix whose rows are k if K_CONTIGUOUS, otherwise i; 0 outside.
    template <bool K_CONTIGUOUS>
    DEVICE_MEMBER uint32_t element(int i, int more_k) const {
        const int64_t row = first_row + i, column = k + more_k;
        if (row >= rows || column >= end_k) return 0;
        return matrix.data[K_CONTIGUOUS ? row * matrix.stride + column : column * matrix.stride + row].bits;
    }
    DEVICE_MEMBER unsigned clamped(unsigned i, int64_t last) const {
        return i <= last - first_row ? i : static_cast<unsigned>(last - first_row);
    }
};

// Memory has (i, k) at i * stride + k. ARRANGED: rows of the tile are in the unit's order.
template <int ROWS, int STAGE_K, bool ARRANGED, int BLOCK_THREADS>
struct RowLoader {
    using Tile = OperandTile<STAGE_K>;
    static constexpr int EACH = ROWS * Tile::CHUNKS / BLOCK_THREADS, STEP = BLOCK_THREADS / Tile::CHUNKS;
    Source source;
    const char* base;
    unsigned offset[EACH];  // bytes from base
    unsigned target;        // of the thread's first chunk, in a tile
    Chunk fetched[EACH];

    DEVICE_MEMBER RowLoader(const Source& given) : source(given), target(opaque(first_target(threadIdx.x))) {
        const int64_t first = uniform_wide(given.first_row * given.matrix.stride + given.k);
        base = reinterpret_cast<const char*>(given.matrix.data + first);
        source.k = uniform(given.k);
        for (int e = 0; e < EACH; ++e) {
            const unsigned i = source.clamped(row(threadIdx.x, e), source.rows - 1);
            offset[e] = (i * static_cast<unsigned>(given.matrix.stride) + chunk(threadIdx.x) * WIDTH) * 2;
        }
    }
    static DEVICE_MEMBER unsigned chunk(unsigned thread) { return thread % Tile::CHUNKS; }
    static DEVICE_MEMBER unsigned place(unsigned thread, int e) { return thread / Tile::CHUNKS + e * STEP; }
    static DEVICE_MEMBER unsigned row(unsigned thread, int e) {
        return ARRANGED ? Unit::row_at(place(thread, e)) : place(thread, e);
    }
    DEVICE_MEMBER bool aligned() const { return is_wide(source.matrix.stride); }

    DEVICE_MEMBER void fetch() {
#pragma unroll
        for (int e = 0; e < EACH; ++e) fetched[e] = *reinterpret_cast<const Chunk*>(base + opaque(offset[e]));
    }
    DEVICE_MEMBER void put(bf16* tile) const {
#pragma unroll
        for (int e = 0; e < EACH; ++e) *Tile::template at<Chunk>(tile, target, e * STEP, 0) = fetched[e];
    }
    static DEVICE_MEMBER unsigned first_target(unsigned thread) {
        return Tile::offset(place(thread, 0), chunk(thread) * WIDTH);
    }
    DEVICE_MEMBER void copy(bf16* tile) const {
        const unsigned thread = opaque(threadIdx.x);
#pragma unroll 1
        for (int pair = 0; pair < EACH * WIDTH / 2; ++pair) {
            const int e = pair / (WIDTH / 2), within = pair % (WIDTH / 2) * 2;
            const int i = row(thread, e), k = chunk(thread) * WIDTH + within;
            *Tile::template at<uint32_t>(tile, first_target(thread), e * STEP, within) =
                source.element<true>(i, k) | source.element<true>(i, k + 1) << 16;
        }
    }
    DEVICE_MEMBER void advance() {
        source.k += STAGE_K;
        base += STAGE_K * 2;
    }
};

// Memory has (i, k) at k * stride + i: a thread loads 4 i of 4 k, and stores 4 k of 4 i. A block's threads may form
// several groups of BLOCK_THREADS, which load different tiles.
template <int ROWS, int STAGE_K, bool ARRANGED, int BLOCK_THREADS>
struct TransposingLoader {
    using Tile = OperandTile<STAGE_K>;
    static constexpr int SQUARES = ROWS / 4,
                         EACH = SQUARES * (STAGE_K / 4) / BLOCK_THREADS;  // squares of 4 x 4 along i
    // 8 neighbours of a wave load 64 neighbouring bytes; the next 8 load other k, so that their stores use other banks.
    static constexpr int ALONG = 8, DOWN = BLOCK_THREADS / SQUARES;
    static constexpr int PLACE_STEP = ARRANGED ? Unit::PLACE_STEP : 1;
    Source source;
    const char* base;
    unsigned offset;  // bytes from base, of the first k and i
    unsigned target;  // of the same in a tile
    HalfChunk fetched[EACH][4];

    DEVICE_MEMBER TransposingLoader(const Source& given) : source(given), target(opaque(first_target(thread()))) {
        const int64_t first = uniform_wide(given.k * given.matrix.stride + given.first_row);
        base = reinterpret_cast<const char*>(given.matrix.data + first);
        source.k = uniform(given.k);
        const unsigned i = source.clamped(first_i(thread()), source.rows - 4);
        offset = (first_k(thread()) * static_cast<unsigned>(given.matrix.stride) + i) * 2;
    }
    static DEVICE_MEMBER unsigned thread() { return threadIdx.x % BLOCK_THREADS; }
    static DEVICE_MEMBER unsigned first_i(unsigned thread) {
        const unsigned group = thread / ALONG;
        const unsigned along = SQUARES == ALONG ? 0 : group / 2 % (SQUARES / ALONG) * ALONG;
        return (along + thread % ALONG) * 4;
    }
    static DEVICE_MEMBER unsigned first_k(unsigned thread) {
        const unsigned group = thread / ALONG;
        return (SQUARES == ALONG ? group : group / (2 * (SQUARES / ALONG)) * 2 + group % 2) * 4;
    }
    DEVICE_MEMBER bool aligned() const { return is_wide(source.matrix.stride) && is_wide(source.rows); }

    DEVICE_MEMBER void fetch() {
        const int64_t row_bytes = source.matrix.stride * 2;
        const unsigned own = opaque(offset);
#pragma unroll
        for (int e = 0; e < EACH; ++e)
#pragma unroll
            for (int k = 0; k < 4; ++k)
                fetched[e][k] = *reinterpret_cast<const HalfChunk*>(base + (e * DOWN * 4 + k) * row_bytes + own);
    }
    DEVICE_MEMBER void put(bf16* tile) const {
#pragma unroll
        for (int e = 0; e < EACH; ++e)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                HalfChunk row;
                for (int half = 0; half < 2; ++half) {
                    const uint32_t first = fetched[e][2 * half][i / 2], second = fetched[e][2 * half + 1][i / 2];
                    row[half] = i % 2 ? high_halves(first, second) : low_halves(first, second);
                }
                *at(tile, target, e, i) = row;
            }
    }
    DEVICE_MEMBER void copy(bf16* tile) const {
        const unsigned own = opaque(thread());
#pragma unroll 1
        for (int row = 0; row < EACH * 4; ++row) {
            const int e = row / 4, i = first_i(own) + row % 4, k = first_k(own) + e * DOWN * 4;
            HalfChunk pairs;
            for (int half = 0; half < 2; ++half)
                pairs[half] = source.element<false>(i, k + 2 * half) | source.element<false>(i, k + 2 * half + 1) << 16;
            *at(tile, first_target(own), e, row % 4) = pairs;
        }
    }
    static DEVICE_MEMBER unsigned first_target(unsigned thread) {
        return Tile::offset(ARRANGED ? Unit::place_of(first_i(thread)) : first_i(thread), first_k(thread));
    }
    // Where 4 k of one of the thread's rows are stored.
    static DEVICE_MEMBER HalfChunk* at(bf16* tile, unsigned first, int e, int i) {
        return Tile::template at<HalfChunk>(tile, first, i * PLACE_STEP, e * DOWN * 4);
    }
    DEVICE_MEMBER void advance() {
        source.k += STAGE_K;
        base += STAGE_K * source.matrix.stride * 2;
    }
};

// Calls visit(i, i % 2) for i from 0 to count - 1. Two stages of a loop are in shared memory in turn. An iteration visits
// both, so that their addresses are constants. The last of an odd number is visited after the loop, because clang would
// copy all sums in a loop that may be left in its midst.
template <class Visit>
DEVICE void visit_in_turn(int count, const Visit& visit) {
    int i = 0;
#pragma unroll 1
    for (; i + 1 < count; i += 2) {
        visit(i, 0);
        visit(i + 1, 1);
    }
    if (i < count) visit(i, 0);
}

// What the lanes of a wave do together: shuffles, votes, and products by matrix units, whose registers are laid out as AMD
// documents it, not as the kernels of kernels/gpu think of it.
//
// Matrix units: "AMD Instinct MI200 ISA" and "AMD Instinct CDNA4 ISA" (MFMA), "RDNA3 ISA", section 7.9, and "RDNA4 ISA",
// section 7.12 (WMMA); the formulas
// below say where an element of a matrix is, as AMD's matrix instruction calculator prints them. Operands are bf16 and
// products exact in f32; sums are rounded to nearest, in the order of their terms, where a chip may cut them off.
#include <cstring>

#include "fakehip.h"

namespace {

struct Exchange {
    unsigned word, source_lane;  // what the lane gives, then what it gets; from where
};

const char* exchange(void* const* given, unsigned lanes) {
    unsigned words[MOST_LANES];
    for (unsigned lane = 0; lane < lanes; ++lane) words[lane] = static_cast<Exchange*>(given[lane])->word;
    for (unsigned lane = 0; lane < lanes; ++lane) {
        Exchange& own = *static_cast<Exchange*>(given[lane]);
        if (own.source_lane >= lanes) return "a shuffle reads a lane that the wave has not";
        own.word = words[own.source_lane];
    }
    return nullptr;
}

const char* order_memory(void* const*, unsigned) { return nullptr; }

struct Vote {
    bool chosen;
    uint64_t everyone;
};

const char* vote(void* const* given, unsigned lanes) {
    uint64_t everyone = 0;
    for (unsigned lane = 0; lane < lanes; ++lane) everyone |= uint64_t{static_cast<Vote*>(given[lane])->chosen} << lane;
    for (unsigned lane = 0; lane < lanes; ++lane) static_cast<Vote*>(given[lane])->everyone = everyone;
    return nullptr;
}

struct Product {  // one lane's registers: of A and B packed bf16, of C and then D f32
    const unsigned short *a, *b;
    float* c;
};

struct Element {
    unsigned lane, number;  // number: of the values that a lane holds of the matrix
};

// v_mfma_f32_16x16x16bf16_1k: waves of 64, a lane holds 4 elements of A, of B and of C.
struct Mfma {
    static constexpr unsigned LANES = 64, COPIES = 1, K = 16;
    static Element operand(unsigned i, unsigned k) { return {16 * (k / 4) + i, k % 4}; }  // A[i][k] or B[k][i]
    static Element sum(unsigned i, unsigned j) { return {16 * (i / 4) + j, i % 4}; }      // C[i][j] and D[i][j]
};

// v_mfma_f32_16x16x32_bf16 of CDNA 4: a lane holds 8 elements of A and of B.
struct WideMfma : Mfma {
    static constexpr unsigned K = 32;
    static Element operand(unsigned i, unsigned k) { return {16 * (k / 8) + i, k % 8}; }
};

// v_wmma_f32_16x16x16_bf16 of RDNA 3: waves of 32, both halves of which must hold the same 16 elements of A and of B.
struct WmmaOfRdna3 {
    static constexpr unsigned LANES = 32, COPIES = 2, K = 16;
    static Element operand(unsigned i, unsigned k) { return {i, k}; }
    static Element sum(unsigned i, unsigned j) { return {16 * (i % 2) + j, i / 2}; }
};

// v_wmma_f32_16x16x16_bf16 of RDNA 4: waves of 32, a lane holds 8 elements of A, of B and of C.
struct WmmaOfRdna4 {
    static constexpr unsigned LANES = 32, COPIES = 1, K = 16;
    static Element operand(unsigned i, unsigned k) { return {16 * (k / 8) + i, k % 8}; }
    static Element sum(unsigned i, unsigned j) { return {16 * (i / 8) + j, i % 8}; }
};

float widened(unsigned short bits) {
    const unsigned word = unsigned{bits} << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

template <class Unit>
const char* multiply(void* const* given, unsigned lanes) {
    if (lanes != Unit::LANES) return "a matrix unit multiplies for a whole wave";
    const auto lane = [given](unsigned which) -> const Product& { return *static_cast<const Product*>(given[which]); };
    float a[16][Unit::K], b[Unit::K][16];  // a[i][k], b[k][j]
    for (unsigned i = 0; i < 16; ++i)
        for (unsigned k = 0; k < Unit::K; ++k) {
            const Element element = Unit::operand(i, k);
            const Product& own = lane(element.lane);
            a[i][k] = widened(own.a[element.number]);
            b[k][i] = widened(own.b[element.number]);
            if (Unit::COPIES == 1) continue;
            const Product& copy = lane(element.lane + 16);
            if (copy.a[element.number] != own.a[element.number] || copy.b[element.number] != own.b[element.number])
                return "the halves of a wave give a matrix unit different operands";
        }
    for (unsigned i = 0; i < 16; ++i) {
        float row[16];
        for (unsigned j = 0; j < 16; ++j) row[j] = lane(Unit::sum(i, j).lane).c[Unit::sum(i, j).number];
        for (unsigned k = 0; k < Unit::K; ++k)
            for (unsigned j = 0; j < 16; ++j) row[j] += a[i][k] * b[k][j];
        for (unsigned j = 0; j < 16; ++j) lane(Unit::sum(i, j).lane).c[Unit::sum(i, j).number] = row[j];
    }
    return nullptr;
}

}  // namespace

// What kernels call: declared in kernel.h.
#pragma GCC visibility push(default)
extern "C" {

void fakehip_wave_barrier() { meet(order_memory, nullptr); }

unsigned fakehip_exchange(unsigned word, unsigned source_lane) {
    Exchange own{word, source_lane};
    meet(exchange, &own);
    return own.word;
}

unsigned long long fakehip_ballot(bool chosen) {
    Vote own{chosen, 0};
    meet(vote, &own);
    return own.everyone;
}

void fakehip_mfma(const unsigned short* a, const unsigned short* b, float* c) {
    Product own{a, b, c};
    meet(multiply<Mfma>, &own);
}

void fakehip_wide_mfma(const unsigned short* a, const unsigned short* b, float* c) {
    Product own{a, b, c};
    meet(multiply<WideMfma>, &own);
}

void fakehip_wmma_of_rdna3(const unsigned short* a, const unsigned short* b, float* c) {
    Product own{a, b, c};
    meet(multiply<WmmaOfRdna3>, &own);
}

void fakehip_wmma_of_rdna4(const unsigned short* a, const unsigned short* b, float* c) {
    Product own{a, b, c};
    meet(multiply<WmmaOfRdna4>, &own);
}
}

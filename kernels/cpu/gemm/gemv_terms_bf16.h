// The inner step of a matrix-vector product by vectors, of activations in bf16: LANES packed words hold two terms each.
// A bf16 is the upper half of an f32, so a shift or a mask makes the lower or the upper terms into f32.
#pragma once

constexpr int GEMV_TERMS = 2 * LANES;

typedef uint32_t Words __attribute__((vector_size(LANES * sizeof(uint32_t)), aligned(2), may_alias));

inline Vector lower_terms(Words words) { return (Vector)(words << 16); }
inline Vector upper_terms(Words words) { return (Vector)(words & 0xFFFF0000u); }

// Returns sums + the products of GEMV_TERMS terms.
inline Vector multiply_add(Vector sums, const act* x, const act* y) {
    const Words left = *reinterpret_cast<const Words*>(x), right = *reinterpret_cast<const Words*>(y);
    sums += lower_terms(left) * lower_terms(right);
    return sums + upper_terms(left) * upper_terms(right);
}

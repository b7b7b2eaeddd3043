// The inner step of a matrix-vector product by vectors, of activations in f32.
#pragma once

constexpr int GEMV_TERMS = LANES;

// Returns sums + the products of GEMV_TERMS terms.
inline Vector multiply_add(Vector sums, const act* x, const act* y) { return sums + load_vector(x) * load_vector(y); }

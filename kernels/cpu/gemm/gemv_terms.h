// What dot products are made of by plain vectors.
#pragma once

constexpr int DOT_TERMS = LANES;

// sums += the products of DOT_TERMS terms.
inline Vector add_products(Vector sums, const act* x, const act* y) { return sums + load_vector(x) * load_vector(y); }

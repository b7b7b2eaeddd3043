// The widest vectors of the target: LANES floats, any alignment.
#pragma once

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

// LANES neighbours of any type that becomes a float.
template <class T>
inline Vector load_vector(const T* values) {
    Vector result;
    for (int lane = 0; lane < LANES; ++lane) result[lane] = values[lane];
    return result;
}

inline Vector& vector_at(float* values) { return *reinterpret_cast<Vector*>(values); }
inline const Vector& vector_at(const float* values) { return *reinterpret_cast<const Vector*>(values); }

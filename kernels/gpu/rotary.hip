// Rotary positions: a query and a key are rotated by their positions, so that their product depends on the distance.
// Su et al. 2021, arXiv:2104.09864. Channel i of the first half of a head pairs with channel i + D/2.
//
// rotation_table: the cosines, then the sines, of the angles p * base^(-2i/D) for 0 <= i < D/2, where p = starts[b] + s
// is a position. rotations (B, S, D) f32; starts (B) i32; D even. Angles are reduced to one turn in f64.
// Grid ceil(B*S*D/2 / THREADS), a thread per pair. Minimum traffic: 4*B*S*D bytes.
//
// rotary_forward: qkv[b,s] = rotated queries, rotated keys, values. packed (B, S, G, D) row-major, act, holds H queries,
// then (G - H)/2 keys, then as many values. qkv (B, S, 3, H, D), act: with fewer keys than queries, each key and value
// is repeated for H / keys neighbouring queries (grouped-query attention: Ainslie et al. 2023, arXiv:2305.13245).
// Grid ceil(B*S*3*H*D/2 / THREADS), a thread per pair of qkv.
// Minimum traffic: B*S*(3*H + G)*D*sizeof(act) + 4*B*S*D bytes.
//
// rotary_backward: dpacked from dqkv: rotates back, and adds up the gradients of repeated keys and values.
// Grid ceil(B*S*G*D/2 / THREADS), a thread per pair of dpacked. The same traffic.
#include "gpu/simt/vector_io.h"

constexpr double TURN = 6.283185307179586476925286766559;

KERNEL(THREADS)
rotation_table(float* rotations, const int32_t* starts, int64_t B, int64_t S, int64_t D, float base) {
    const int64_t half = D / 2, index = int64_t{blockIdx.x} * THREADS + threadIdx.x, n = index / half, i = index % half;
    if (n >= B * S) return;
    const double position = static_cast<double>(starts[n / S] + n % S);
    const double turns = position * pow(static_cast<double>(base), -2.0 * i / D) / TURN;
    const float angle = static_cast<float>((turns - rint(turns)) * TURN);
    rotations[n * D + i] = cosf(angle);
    rotations[n * D + half + i] = sinf(angle);
}

// The pair (x[i], x[i + half]) rotated by the angle of (cosine, sine).
struct Pair {
    float first, second;

    DEVICE_MEMBER Pair rotated(float cosine, float sine) const {
        return {first * cosine - second * sine, second * cosine + first * sine};
    }
};

KERNEL(THREADS)
rotary_forward(act* qkv, const act* packed, const float* rotations, int64_t B, int64_t S, int64_t H, int64_t D,
               int64_t G) {
    const int64_t half = D / 2, index = int64_t{blockIdx.x} * THREADS + threadIdx.x, i = index % half;
    const int64_t head = index / half, n = head / (3 * H), keys = (G - H) / 2, group = H / keys;
    if (n >= B * S) return;
    const int64_t kind = head % (3 * H) / H, h = head % H;
    const int64_t source = kind == 0 ? h : H + (kind - 1) * keys + h / group;
    const act* x = packed + (n * G + source) * D + i;
    Pair pair = {widen(x[0]), widen(x[half])};
    if (kind < 2) pair = pair.rotated(rotations[n * D + i], rotations[n * D + half + i]);
    narrow(qkv[head * D + i], pair.first);
    narrow(qkv[head * D + half + i], pair.second);
}

KERNEL(THREADS)
rotary_backward(act* dpacked, const act* dqkv, const float* rotations, int64_t B, int64_t S, int64_t G, int64_t D,
                int64_t H) {
    const int64_t half = D / 2, index = int64_t{blockIdx.x} * THREADS + threadIdx.x, i = index % half;
    const int64_t n = index / half / G, g = index / half % G, keys = (G - H) / 2, group = H / keys;
    if (n >= B * S) return;
    const int64_t first = g < H ? g : H + (g - H) * group, copies = g < H ? 1 : group;
    Pair pair = {0.0f, 0.0f};
    for (int64_t h = first; h < first + copies; ++h) {
        const act* dy = dqkv + (n * 3 * H + h) * D + i;
        pair.first += widen(dy[0]);
        pair.second += widen(dy[half]);
    }
    if (g < H + keys) pair = pair.rotated(rotations[n * D + i], -rotations[n * D + half + i]);
    narrow(dpacked[(n * G + g) * D + i], pair.first);
    narrow(dpacked[(n * G + g) * D + half + i], pair.second);
}

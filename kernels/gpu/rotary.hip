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
// Grid ceil(B*S*3*H*D/2 / THREADS / EACH), a thread for EACH pairs of qkv: WIDTH if that divides D/2, otherwise 1.
// Minimum traffic: B*S*(3*H + G)*D*sizeof(act) + 4*B*S*D bytes.
//
// rotary_backward: dpacked from dqkv: rotates back, and adds up the gradients of repeated keys and values.
// Grid ceil(B*S*G*D/2 / THREADS / EACH), a thread for EACH pairs of dpacked. The same traffic.
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

// EACH pairs (x[i], x[i + half]) of neighbouring i, where half is that of a head.
template <int EACH>
struct Pairs {
    float first[EACH] = {}, second[EACH] = {};

    DEVICE_MEMBER void add(const act* x, int half) {
        float low[EACH], high[EACH];
        load(low, x);
        load(high, x + half);
        for (int e = 0; e < EACH; ++e) {
            first[e] += low[e];
            second[e] += high[e];
        }
    }
    // cosines: of these i, the sines half a head further. direction: 1 to rotate forwards, -1 back.
    DEVICE_MEMBER void rotate(const float* cosines, int half, float direction) {
        float cosine[EACH], sine[EACH];
        load(cosine, cosines);
        load(sine, cosines + half);
        for (int e = 0; e < EACH; ++e) {
            const float x = first[e], y = second[e], s = direction * sine[e];
            first[e] = x * cosine[e] - y * s;
            second[e] = y * cosine[e] + x * s;
        }
    }
    DEVICE_MEMBER void write(act* y, int half) const {
        store(y, first);
        store(y + half, second);
    }
};

// Head number `head` of all, and the first channel of a thread's pairs. 32 bits are enough for 2^32 pairs, and a 64-bit
// division takes as long as the rest of a thread.
template <int EACH>
struct HeadPlace {
    uint32_t head;
    int half, i;

    DEVICE_MEMBER explicit HeadPlace(int64_t D) : half(static_cast<int>(D / 2)) {
        const uint32_t threads = half / EACH, index = blockIdx.x * THREADS + threadIdx.x;
        head = index / threads;
        i = static_cast<int>(index - head * threads) * EACH;
    }
};

template <int EACH>
DEVICE void forward(act* qkv, const act* packed, const float* rotations, int64_t B, int64_t S, int64_t D, uint32_t H,
                    uint32_t G) {
    const HeadPlace<EACH> place(D);
    const uint32_t n = place.head / (3 * H), of_token = place.head - n * 3 * H, keys = (G - H) / 2;
    if (n >= B * S) return;
    const uint32_t kind = of_token / H, h = of_token - kind * H;
    const uint32_t source = kind == 0 ? h : H + (kind - 1) * keys + h / (H / keys);
    Pairs<EACH> pairs;
    pairs.add(packed + (int64_t{n} * G + source) * D + place.i, place.half);
    if (kind < 2) pairs.rotate(rotations + int64_t{n} * D + place.i, place.half, 1.0f);
    pairs.write(qkv + int64_t{place.head} * D + place.i, place.half);
}

KERNEL(THREADS)
rotary_forward(act* qkv, const act* packed, const float* rotations, int64_t B, int64_t S, int64_t H, int64_t D,
               int64_t G) {
    if (is_wide(D / 2))
        forward<WIDTH>(qkv, packed, rotations, B, S, D, H, G);
    else
        forward<1>(qkv, packed, rotations, B, S, D, H, G);
}

template <int EACH>
DEVICE void backward(act* dpacked, const act* dqkv, const float* rotations, int64_t B, int64_t S, int64_t D, uint32_t H,
                     uint32_t G) {
    const HeadPlace<EACH> place(D);
    const uint32_t n = place.head / G, g = place.head - n * G, keys = (G - H) / 2, group = H / keys;
    if (n >= B * S) return;
    const uint32_t first = g < H ? g : H + (g - H) * group, copies = g < H ? 1 : group;
    Pairs<EACH> pairs;
    for (uint32_t h = first; h < first + copies; ++h)
        pairs.add(dqkv + (int64_t{n} * 3 * H + h) * D + place.i, place.half);
    if (g < H + keys) pairs.rotate(rotations + int64_t{n} * D + place.i, place.half, -1.0f);
    pairs.write(dpacked + int64_t{place.head} * D + place.i, place.half);
}

KERNEL(THREADS)
rotary_backward(act* dpacked, const act* dqkv, const float* rotations, int64_t B, int64_t S, int64_t G, int64_t D,
                int64_t H) {
    if (is_wide(D / 2))
        backward<WIDTH>(dpacked, dqkv, rotations, B, S, D, H, G);
    else
        backward<1>(dpacked, dqkv, rotations, B, S, D, H, G);
}

// What a kernel is compiled with on the stand-in, in place of HIPRTC's own header: the language's words as C++, the
// thread's indices and what a thread may ask of its wave and block (block.cpp).
#pragma once

#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define amdgpu_waves_per_eu(waves)
#define __shared__ static __attribute__((used))  // in .bss; used: not to be optimized away, as it is poisoned

struct Index {
    unsigned x, y, z;
};

extern "C" {
extern Index threadIdx, blockIdx, blockDim, gridDim;
void fakehip_block_barrier();
void fakehip_wave_barrier();
unsigned fakehip_lane();
unsigned fakehip_exchange(unsigned word, unsigned source_lane);
unsigned long long fakehip_ballot(bool chosen);
void fakehip_mfma(const unsigned short* a, const unsigned short* b, float* c);
void fakehip_wide_mfma(const unsigned short* a, const unsigned short* b, float* c);
void fakehip_wmma_of_rdna3(const unsigned short* a, const unsigned short* b, float* c);
void fakehip_wmma_of_rdna4(const unsigned short* a, const unsigned short* b, float* c);

float sqrtf(float);
float exp2f(float);
float logf(float);
float fmaxf(float, float);
float cosf(float);
float sinf(float);
double sqrt(double);
double pow(double, double);
double rint(double);
double ceil(double);
}

inline int __float_as_int(float value) { return __builtin_bit_cast(int, value); }
inline float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }
inline long long __double_as_longlong(double value) { return __builtin_bit_cast(long long, value); }
inline double __longlong_as_double(long long bits) { return __builtin_bit_cast(double, bits); }

inline void __syncthreads() { fakehip_block_barrier(); }

// Fibers do not run in step as lanes do: the barrier is a meeting here, and memory is always in order.
#define __builtin_amdgcn_fence(order, scope) ((void)0)
inline void __builtin_amdgcn_wave_barrier() { fakehip_wave_barrier(); }

// width, a power of 2, cuts the wave into parts; a lane whose partner is in a later part reads itself.
inline float __shfl_xor(float value, int mask, int width) {
    const int lane = fakehip_lane(), partner = lane ^ mask, end = (lane + width) & ~(width - 1);
    return __int_as_float(fakehip_exchange(__float_as_int(value), partner < end ? partner : lane));
}

inline unsigned long long __ballot(int chosen) { return fakehip_ballot(chosen); }

// The lanes of a wave have the same value, or the kernel is wrong on a chip; here each lane keeps its own.
inline int __builtin_amdgcn_readfirstlane(int value) { return value; }

// The lane in the other row of 16: only this selection of lanes is known here.
inline unsigned __builtin_amdgcn_permlanex16(unsigned, unsigned value, unsigned low, unsigned high, bool, bool) {
    if (low != 0x76543210 || high != 0xFEDCBA98) __builtin_trap();
    return fakehip_exchange(value, fakehip_lane() ^ 16);
}

// "RDNA3 ISA", DPP16, and "AMD Instinct MI300 ISA", DPP: which of the 16 lanes of its row a lane reads. Only these controls
// are known here, with all rows and banks enabled.
inline int __builtin_amdgcn_update_dpp(int, int value, int control, int rows, int banks, bool) {
    const unsigned lane = fakehip_lane(), within = lane % 16;
    unsigned source = within;
    if (rows != 15 || banks != 15) __builtin_trap();
    if (control < 0x100)  // quad_perm
        source = within / 4 * 4 + (control >> within % 4 * 2 & 3);
    else if (control > 0x120 && control < 0x130)  // row_ror: to the right, from the left
        source = (within + 16 - control % 16) % 16;
    else if (control == 0x141)  // row_half_mirror
        source = within ^ 7;
    else if (control >= 0x160 && control < 0x170)  // row_xmask, of RDNA: clang refuses it for CDNA
        source = within ^ control % 16;
    else
        __builtin_trap();
    return fakehip_exchange(value, lane - within + source);
}

// "RDNA3 ISA", DS_SWIZZLE_B32: the masks of the number of the source lane; other modes are not known here.
inline int __builtin_amdgcn_ds_swizzle(int value, int pattern) {
    if (pattern & 0x8000) __builtin_trap();
    const unsigned lane = fakehip_lane(), masks = pattern;
    const unsigned source = ((lane & masks & 31) | (masks >> 5 & 31)) ^ (masks >> 10 & 31);
    return fakehip_exchange(value, (lane & ~31u) + source);
}

// "AMD Instinct MI300 ISA", DS_BPERMUTE_B32: the source lane's number times 4, modulo a wave of 64.
inline int __builtin_amdgcn_ds_bpermute(int address, int value) {
    return fakehip_exchange(value, static_cast<unsigned>(address) / 4 % 64);
}

// Each byte of the result is one of the eight bytes of `high` and `low`, low's first, that a byte of `select` numbers.
inline unsigned __builtin_amdgcn_perm(unsigned high, unsigned low, unsigned select) {
    const unsigned long long bytes = static_cast<unsigned long long>(high) << 32 | low;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= static_cast<unsigned>(bytes >> (select >> 8 * i & 7) * 8 & 255) << 8 * i;
    return result;
}

// A fiber gives way at meetings only.
inline int atomicAdd(int* target, int value) {
    const int before = *target;
    *target += value;
    return before;
}

inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }

// The chip's quick functions are off by a unit in the last place and know no subnormal numbers ("RDNA3 ISA", V_RCP_F32 and
// V_EXP_F32): so are these, lest kernels come out more exact here than on a chip.
inline float fakehip_rough(float value) {
    const int bits = __float_as_int(value);
    return __int_as_float(bits & 0x7F800000 ? bits & ~1 : bits & 0x80000000);
}
inline float __builtin_amdgcn_exp2f(float x) { return fakehip_rough(exp2f(x)); }
inline float __builtin_amdgcn_rcpf(float x) { return fakehip_rough(1.0f / x); }

// The matrix units that the chip has: a kernel for another one does not compile.
template <int COUNT>
struct Registers {
    typedef short Packed __attribute__((vector_size(2 * COUNT)));
    typedef float Floats __attribute__((vector_size(4 * COUNT)));
};

template <auto unit, class Packed, class Floats>
inline Floats fakehip_multiply(Packed a, Packed b, Floats c) {
    unit(reinterpret_cast<const unsigned short*>(&a), reinterpret_cast<const unsigned short*>(&b),
         reinterpret_cast<float*>(&c));
    return c;
}

#if defined(__gfx90a__) || defined(__gfx942__)
inline Registers<4>::Floats __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(Registers<4>::Packed a, Registers<4>::Packed b,
                                                                      Registers<4>::Floats c, int, int, int) {
    return fakehip_multiply<fakehip_mfma>(a, b, c);
}
#elif defined(__gfx950__)
inline Registers<4>::Floats __builtin_amdgcn_mfma_f32_16x16x32_bf16(Registers<8>::Packed a, Registers<8>::Packed b,
                                                                    Registers<4>::Floats c, int, int, int) {
    return fakehip_multiply<fakehip_wide_mfma>(a, b, c);
}

// v_cvt_pk_bf16_f32, as clang spells it: GCC has no arithmetic in bf16. To nearest, ties to even; NaN stays NaN.
#define __bf16 short
#define __builtin_convertvector(floats, pair) fakehip_bf16_pair(floats)
inline short fakehip_bf16(float value) {
    const unsigned bits = __float_as_int(value);
    return value != value ? bits >> 16 | 64 : (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
inline Registers<2>::Packed fakehip_bf16_pair(Registers<2>::Floats floats) {
    const Registers<2>::Packed pair = {fakehip_bf16(floats[0]), fakehip_bf16(floats[1])};
    return pair;
}
#elif defined(__gfx1100__)
inline Registers<8>::Floats __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(Registers<16>::Packed a,
                                                                        Registers<16>::Packed b,
                                                                        Registers<8>::Floats c) {
    return fakehip_multiply<fakehip_wmma_of_rdna3>(a, b, c);
}
#elif defined(__gfx1201__)
inline Registers<8>::Floats __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(Registers<8>::Packed a,
                                                                              Registers<8>::Packed b,
                                                                              Registers<8>::Floats c) {
    return fakehip_multiply<fakehip_wmma_of_rdna4>(a, b, c);
}
#endif

// Reads a launch's buffer of arguments: each at a multiple of its own size.
struct PackedArguments {
    const char* data;
    unsigned long offset = 0;

    template <class T>
    __attribute__((no_sanitize("kernel-address"))) T take() {  // the buffer is not the device's memory
        offset = (offset + sizeof(T) - 1) / sizeof(T) * sizeof(T);
        T value;
        __builtin_memcpy(&value, data + offset, sizeof(T));
        offset += sizeof(T);
        return value;
    }
};

template <class... Arguments>
struct Call {
    Call(void (*kernel)(Arguments...), Arguments... arguments) { kernel(arguments...); }
};

// Runs one thread of a kernel. The braces have the arguments taken in order.
template <class... Arguments>
inline void fakehip_call(void (*kernel)(Arguments...), const char* data) {
    PackedArguments packed{data};
    Call<Arguments...>{kernel, packed.take<Arguments>()...};
}

template <class... Arguments>
constexpr unsigned long fakehip_argument_bytes(void (*)(Arguments...)) {
    unsigned long offset = 0;
    ((offset = (offset + sizeof(Arguments) - 1) / sizeof(Arguments) * sizeof(Arguments) + sizeof(Arguments)), ...);
    return offset;
}

// What compiler.cpp writes after the source for each kernel in it.
#define FAKEHIP_EXPORT(kernel)                                                                       \
    extern "C" void fakehip_run_##kernel(const char* arguments) { fakehip_call(kernel, arguments); } \
    extern "C" const unsigned long fakehip_bytes_##kernel = fakehip_argument_bytes(kernel);

// The ends of .bss, by the linker's names for them.
extern "C" {
extern char __bss_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
__attribute__((weak)) char* fakehip_shared_begin() { return __bss_start; }
__attribute__((weak)) char* fakehip_shared_end() { return _end; }
}

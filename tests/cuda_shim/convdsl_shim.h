// CUDA C for a processor: the built-ins that printed kernels and their prelude use.
//
// Included ahead of a module's source, whose prelude it replaces. What needs the other threads of a
// warp or a block asks the engine; the rest is plain C++.
#pragma once

#include "engine.h"
#include "group_products.h"
#include "half.h"
#include "tensor_cores.h"

#define __global__ __attribute__((noinline))
#define __device__ static inline
#define __forceinline__ __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __syncthreads() convdsl_barrier(__LINE__)

// `__shared__ T name[n];` is rewritten by modules.py, which numbers the declarations:
#define CONVDSL_SHARED(number, type, name, count) \
    type(&name)[count] = *static_cast<type(*)[count]>( \
        convdsl_shared(number, #name, sizeof(type) * (count), sizeof(type)))
#define CONVDSL_DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(convdsl_dynamic_shared())

// Vectors of the built-in types: two and four lanes, loaded and stored whole.
#define CONVDSL_VECTORS(type, name)                                         \
    struct alignas(2 * sizeof(type)) name##2 {                              \
        type x, y;                                                          \
    };                                                                      \
    struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { \
        type x, y, z, w;                                                    \
    };                                                                      \
    static inline name##2 make_##name##2(type x, type y) { return {x, y}; } \
    static inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
CONVDSL_VECTORS(float, float)
CONVDSL_VECTORS(double, double)
CONVDSL_VECTORS(int, int)
CONVDSL_VECTORS(unsigned, uint)
CONVDSL_VECTORS(short, short)
CONVDSL_VECTORS(unsigned short, ushort)
CONVDSL_VECTORS(char, char)
CONVDSL_VECTORS(unsigned char, uchar)
CONVDSL_VECTORS(long long, longlong)
CONVDSL_VECTORS(unsigned long long, ulonglong)
#undef CONVDSL_VECTORS

// Scalar functions, in both precisions.
#define CONVDSL_1(name)                                                      \
    static inline float name##f(float x) { return __builtin_##name##f(x); }  \
    static inline double name(double x) { return __builtin_##name(x); }
#define CONVDSL_2(name)                                                                        \
    static inline float name##f(float a, float b) { return __builtin_##name##f(a, b); }        \
    static inline double name(double a, double b) { return __builtin_##name(a, b); }
CONVDSL_1(sqrt)
CONVDSL_1(floor)
CONVDSL_1(ceil)
CONVDSL_1(trunc)
CONVDSL_1(rint)
CONVDSL_1(fabs)
CONVDSL_2(fmax)
CONVDSL_2(fmin)
CONVDSL_2(copysign)
#undef CONVDSL_1
#undef CONVDSL_2
static inline float fmaf(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
static inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
static inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
static inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
static inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }
static inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
static inline double __longlong_as_double(long long x) { return __builtin_bit_cast(double, x); }
static inline long long __double_as_longlong(double x) { return __builtin_bit_cast(long long, x); }
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}

// Values handed around a warp.
namespace convdsl {

template <class T>
struct Handed {
    T value;
    unsigned from;
    T *into;
};

template <class T>
CONVDSL_UNNOTED void hand_around(void *const *lanes) {
    for (int lane = 0; lane < 32; lane++) {
        if (!lanes[lane]) continue;
        const Handed<T> &mine = *static_cast<const Handed<T> *>(lanes[lane]);
        if (!lanes[mine.from & 31]) convdsl_fail("a shuffle from a lane that is not there");
        *mine.into = static_cast<const Handed<T> *>(lanes[mine.from & 31])->value;
    }
}

template <class T>
inline T shuffle_xor(int site, unsigned mask, T value, unsigned flip, unsigned width) {
    unsigned lane = (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
    unsigned from = lane ^ flip;
    if (from / width > lane / width) from = lane;  // as the manual says of xor across segments
    T made;
    Handed<T> mine{value, from, &made};
    convdsl_meet(mask, site, &mine, hand_around<T>);
    return made;
}

inline void nothing(void *const *) {}

// Lanes of this warp that there are; all of them come to where this is asked.
inline unsigned lanes_here() {
    unsigned own = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    unsigned count = blockDim.x * blockDim.y * blockDim.z - own / 32 * 32;
    return count < 32 ? (1u << count) - 1 : ~0u;
}

}  // namespace convdsl

#define __shfl_xor_sync(mask, value, flip, ...) \
    convdsl::shuffle_xor(__LINE__, mask, value, flip, 32 __VA_OPT__(*0 + __VA_ARGS__))
#define __activemask() convdsl::lanes_here()
#define __syncwarp(...) convdsl_meet(0xffffffffu __VA_OPT__(&__VA_ARGS__), __LINE__, nullptr, convdsl::nothing)

// The prelude's own (backends/cuda/prelude.cuh).
template <int SIZE>
static inline void copy_async(void *to, const void *from, int valid) {
    convdsl_copy(to, from, SIZE, valid);
}
static inline void commit_copies() { convdsl_commit(); }
template <int LEFT>
static inline void wait_copies() {
    convdsl_wait(LEFT);
}
static inline float from_f16(unsigned short x) { return convdsl::Float16::widen(x); }
static inline unsigned short to_f16(float x) { return convdsl::Float16::narrow(x); }
static inline unsigned short to_bf16(float x) { return convdsl::BFloat16::narrow(x); }
static inline float tf32(float x) { return convdsl::to_tf32(x); }
#define CONVDSL_PAIR(name, Number)                                       \
    static inline unsigned pair_of_##name(float lower, float upper) {    \
        return Number::narrow(lower) | Number::narrow(upper) << 16;      \
    }
CONVDSL_PAIR(bf16, convdsl::BFloat16)
CONVDSL_PAIR(f16, convdsl::Float16)
#undef CONVDSL_PAIR

namespace convdsl {

template <class Kind, class... Factors>
inline void multiply_into(int site, float &s0, float &s1, float &s2, float &s3, Factors... given) {
    const unsigned factors[] = {given...};
    float sums[] = {s0, s1, s2, s3};
    mma<Kind>(site, sums, factors, factors + Kind::A, sums);
    s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3];
}

}  // namespace convdsl

#define mma_m16n8k8_tf32(...) convdsl::multiply_into<convdsl::Tf32>(__LINE__, __VA_ARGS__)
#define mma_m16n8k16_bf16(...) \
    convdsl::multiply_into<convdsl::Halves<convdsl::BFloat16, 16>>(__LINE__, __VA_ARGS__)
#define mma_m16n8k16_f16(...) \
    convdsl::multiply_into<convdsl::Halves<convdsl::Float16, 16>>(__LINE__, __VA_ARGS__)
#define mma_m16n8k8_f16(...) \
    convdsl::multiply_into<convdsl::Halves<convdsl::Float16, 8>>(__LINE__, __VA_ARGS__)

// Products of warp groups (backends/cuda/group_products.py)
using CONVDSL_BF16 = convdsl::Halves<convdsl::BFloat16, 16>;
using CONVDSL_F16 = convdsl::Halves<convdsl::Float16, 16>;
#define CONVDSL_GROUP(Kind, columns, apart, ...) \
    convdsl::begin_product<Kind, columns, apart>(__LINE__, __VA_ARGS__, 0)
#define group_mma_m64n64k8_tf32(...) CONVDSL_GROUP(convdsl::Tf32, 64, 0, __VA_ARGS__)
#define group_mma_m64n64k16_bf16(...) CONVDSL_GROUP(CONVDSL_BF16, 64, 0, __VA_ARGS__)
#define group_mma_m64n64k16_bf16_across64(...) \
    CONVDSL_GROUP(CONVDSL_BF16, 64, 64 * 128, __VA_ARGS__)
#define group_mma_m64n64k16_f16(...) CONVDSL_GROUP(CONVDSL_F16, 64, 0, __VA_ARGS__)
#define group_mma_m64n64k16_f16_across64(...) \
    CONVDSL_GROUP(CONVDSL_F16, 64, 64 * 128, __VA_ARGS__)
#define group_mma_m64n128k8_tf32(...) CONVDSL_GROUP(convdsl::Tf32, 128, 0, __VA_ARGS__)
#define group_mma_m64n128k16_bf16(...) CONVDSL_GROUP(CONVDSL_BF16, 128, 0, __VA_ARGS__)
#define group_mma_m64n128k16_bf16_across64(...) \
    CONVDSL_GROUP(CONVDSL_BF16, 128, 64 * 128, __VA_ARGS__)
#define group_mma_m64n128k16_f16(...) CONVDSL_GROUP(CONVDSL_F16, 128, 0, __VA_ARGS__)
#define group_mma_m64n128k16_f16_across64(...) \
    CONVDSL_GROUP(CONVDSL_F16, 128, 64 * 128, __VA_ARGS__)
#define group_mma_m64n192k8_tf32(...) CONVDSL_GROUP(convdsl::Tf32, 192, 0, __VA_ARGS__)
#define group_mma_m64n192k16_bf16(...) CONVDSL_GROUP(CONVDSL_BF16, 192, 0, __VA_ARGS__)
#define group_mma_m64n192k16_bf16_across64(...) \
    CONVDSL_GROUP(CONVDSL_BF16, 192, 64 * 128, __VA_ARGS__)
#define group_mma_m64n192k16_f16(...) CONVDSL_GROUP(CONVDSL_F16, 192, 0, __VA_ARGS__)
#define group_mma_m64n192k16_f16_across64(...) \
    CONVDSL_GROUP(CONVDSL_F16, 192, 64 * 128, __VA_ARGS__)
#define group_mma_m64n256k8_tf32(...) CONVDSL_GROUP(convdsl::Tf32, 256, 0, __VA_ARGS__)
#define group_mma_m64n256k16_bf16(...) CONVDSL_GROUP(CONVDSL_BF16, 256, 0, __VA_ARGS__)
#define group_mma_m64n256k16_bf16_across64(...) \
    CONVDSL_GROUP(CONVDSL_BF16, 256, 64 * 128, __VA_ARGS__)
#define group_mma_m64n256k16_f16(...) CONVDSL_GROUP(CONVDSL_F16, 256, 0, __VA_ARGS__)
#define group_mma_m64n256k16_f16_across64(...) \
    CONVDSL_GROUP(CONVDSL_F16, 256, 64 * 128, __VA_ARGS__)
static inline void open_products() { convdsl_open_products(); }
static inline void commit_products() { convdsl_commit_products(); }
static inline void show_products() { convdsl_show_products(); }
template <int LEFT>
static inline void wait_products() {
    convdsl_wait_products(LEFT);
}
template <int COUNT>
static inline void settled(float *) {}

// What PTX instructions do, for text that ptx.py has translated. Registers are bits; each
// instruction says as what it reads and writes them. From the PTX manual, chapter by chapter.
#pragma once

#include "engine.h"
#include "group_products.h"
#include "half.h"
#include "tensor_cores.h"

namespace ptx {

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned;
using u64 = unsigned long long;
using s8 = signed char;
using s16 = short;
using s32 = int;
using s64 = long long;
using f32 = float;
using f64 = double;
using b8 = u8;
using b16 = u16;
using b32 = u32;
using b64 = u64;
using pred = bool;

template <int BYTES>
struct Bits;
template <>
struct Bits<1> { using U = u8; using S = s8; };
template <>
struct Bits<2> { using U = u16; using S = s16; };
template <>
struct Bits<4> { using U = u32; using S = s32; };
template <>
struct Bits<8> { using U = u64; using S = s64; };
template <class T>
using U = typename Bits<sizeof(T)>::U;
template <class T>
using S = typename Bits<sizeof(T)>::S;
template <class T>
struct Is { static constexpr bool FLOAT = false, SIGNED = T(-1) < T(0); };
template <>
struct Is<f32> { static constexpr bool FLOAT = true, SIGNED = true; };
template <>
struct Is<f64> { static constexpr bool FLOAT = true, SIGNED = true; };

// The lower bits of a register as T; T in a register that may be wider, its sign kept.
template <class T, class R>
inline T in(R bits) {
    return __builtin_bit_cast(T, static_cast<U<T>>(bits));
}
template <class R, class T>
inline void out(R &to, T x) {
    if constexpr (!Is<T>::FLOAT && Is<T>::SIGNED)
        to = static_cast<R>(static_cast<S<R>>(x));
    else
        to = static_cast<R>(__builtin_bit_cast(U<T>, x));
}
inline void out(bool &to, bool x) { to = x; }

// A denormal as the zero of its sign.
inline f32 flushed(f32 x) {
    return __builtin_fabsf(x) < 1.17549435e-38f ? __builtin_copysignf(0, x) : x;
}

// Integers wrap.
template <class T>
inline T add(T a, T b) {
    if constexpr (Is<T>::FLOAT) return a + b;
    else return static_cast<T>(static_cast<U<T>>(a) + static_cast<U<T>>(b));
}
template <class T>
inline T sub(T a, T b) {
    if constexpr (Is<T>::FLOAT) return a - b;
    else return static_cast<T>(static_cast<U<T>>(a) - static_cast<U<T>>(b));
}
template <class T>
inline T mul(T a, T b) {
    if constexpr (Is<T>::FLOAT) return a * b;
    else return static_cast<T>(static_cast<u64>(static_cast<U<T>>(a)) * static_cast<U<T>>(b));
}
template <class T>
inline T mul_hi(T a, T b) {
    using Wide = __int128;
    using WideU = unsigned __int128;
    if constexpr (Is<T>::SIGNED) return static_cast<T>(static_cast<Wide>(a) * b >> 8 * sizeof(T));
    else return static_cast<T>(static_cast<WideU>(a) * b >> 8 * sizeof(T));
}
template <class W, class T>
inline W mul_wide(T a, T b) {
    return static_cast<W>(static_cast<W>(a) * static_cast<W>(b));
}
template <class T>
inline T fma(T a, T b, T c) {
    if constexpr (sizeof(T) == 4) return __builtin_fmaf(a, b, c);
    else return __builtin_fma(a, b, c);
}
template <class T>
inline T divide(T a, T b) {
    if constexpr (Is<T>::FLOAT) return a / b;
    else if (!b) return static_cast<T>(-1);
    else if (Is<T>::SIGNED && b == static_cast<T>(-1)) return sub<T>(0, a);
    else return a / b;
}
template <class T>
inline T rem(T a, T b) {
    if (!b) return a;
    if (Is<T>::SIGNED && b == static_cast<T>(-1)) return 0;
    return a % b;
}
template <class T>
inline T min(T a, T b) {  // of a number and NaN the number
    if constexpr (Is<T>::FLOAT) return a != a ? b : b != b ? a : __builtin_fmin(a, b);
    else return a < b ? a : b;
}
template <class T>
inline T max(T a, T b) {
    if constexpr (Is<T>::FLOAT) return a != a ? b : b != b ? a : __builtin_fmax(a, b);
    else return a > b ? a : b;
}
template <class T>
inline T min_nan(T a, T b) { return a != a ? a : b != b ? b : min(a, b); }
template <class T>
inline T max_nan(T a, T b) { return a != a ? a : b != b ? b : max(a, b); }
template <class T>
inline T abs(T x) {
    if constexpr (Is<T>::FLOAT) return __builtin_fabs(x);
    else return x < 0 ? sub<T>(0, x) : x;
}
template <class T>
inline T neg(T x) {
    if constexpr (Is<T>::FLOAT) return -x;
    else return sub<T>(0, x);
}
template <class T>
inline T copysign(T sign, T x) { return __builtin_copysign(x, sign); }
template <class T>
inline T sqrt(T x) {
    if constexpr (sizeof(T) == 4) return __builtin_sqrtf(x);
    else return __builtin_sqrt(x);
}
template <class T>
inline T rcp(T x) { return 1 / x; }
template <class T>
inline T rsqrt(T x) { return 1 / sqrt(x); }
// Approximations of a card are a few units off these.
inline f32 ex2(f32 x) { return static_cast<f32>(__builtin_exp2(x)); }
inline f32 lg2(f32 x) { return static_cast<f32>(__builtin_log2(x)); }
inline f32 sin(f32 x) { return static_cast<f32>(__builtin_sin(x)); }
inline f32 cos(f32 x) { return static_cast<f32>(__builtin_cos(x)); }
inline f32 tanh(f32 x) { return static_cast<f32>(__builtin_tanh(x)); }

template <class T>
inline T shl(T a, u32 by) { return by < 8 * sizeof(T) ? static_cast<T>(static_cast<U<T>>(a) << by) : 0; }
template <class T>
inline T shr(T a, u32 by) {
    constexpr u32 LAST = 8 * sizeof(T) - 1;
    if (by > LAST) return Is<T>::SIGNED ? static_cast<T>(a >> LAST) : 0;
    return static_cast<T>(a >> by);
}
inline b32 funnel_left(b32 low, b32 high, u32 by) {
    return by >= 32 ? low : by ? high << by | low >> (32 - by) : high;
}
inline b32 funnel_right(b32 low, b32 high, u32 by) {
    return by >= 32 ? high : by ? low >> by | high << (32 - by) : low;
}
inline b32 lop3(b32 a, b32 b, b32 c, u32 table) {  // bit 4 a + 2 b + c of the table
    b32 made = 0;
    for (int row = 0; row < 8; row++)
        if (table >> row & 1) made |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
    return made;
}
inline b32 prmt(b32 a, b32 b, u32 pick) {
    u64 bytes = static_cast<u64>(b) << 32 | a;
    b32 made = 0;
    for (int i = 0; i < 4; i++) {
        u32 how = pick >> 4 * i & 15;
        u32 byte = bytes >> 8 * (how & 7) & 255;
        if (how & 8) byte = byte & 128 ? 255 : 0;
        made |= byte << 8 * i;
    }
    return made;
}
template <class T>
inline T bfe(T a, u32 from, u32 count) {
    constexpr u32 WIDTH = 8 * sizeof(T);
    from &= 255, count &= 255;
    T made = 0;
    T sign = count && Is<T>::SIGNED ? a >> (from + count - 1 < WIDTH ? from + count - 1 : WIDTH - 1) & 1 : 0;
    for (u32 i = 0; i < WIDTH; i++) {
        T bit = i < count && from + i < WIDTH ? static_cast<U<T>>(a) >> (from + i) & 1 : sign;
        made |= static_cast<T>(static_cast<U<T>>(bit) << i);
    }
    return made;
}
template <class T>
inline T bfi(T what, T into, u32 at, u32 count) {
    constexpr u32 WIDTH = 8 * sizeof(T);
    for (u32 i = 0; i < (count & 255) && at + i < WIDTH; i++)
        into = (into & ~(T(1) << (at + i))) | (what >> i & 1) << (at + i);
    return into;
}
template <class A, class B>
inline b32 dp2a(b32 a, b32 b, b32 c, int from) {  // halves of a times two bytes of b, added to c
    for (int i = 0; i < 2; i++)
        c += static_cast<u32>(static_cast<s32>(static_cast<A>(a >> 16 * i)) *
                              static_cast<s32>(static_cast<B>(b >> 8 * (from + i))));
    return c;
}
inline u32 popc(u32 x) { return __builtin_popcount(x); }
inline u32 popc(u64 x) { return __builtin_popcountll(x); }
inline u32 clz(u32 x) { return x ? __builtin_clz(x) : 32; }
inline u32 clz(u64 x) { return x ? __builtin_clzll(x) : 64; }
inline u32 brev(u32 x) {
    u32 made = 0;
    for (int i = 0; i < 32; i++) made |= (x >> i & 1) << (31 - i);
    return made;
}

// Conversions: floats to integers are brought into range, NaN becomes 0.
template <class T, class F>
inline T to_integer(F x) {
    if (x != x) return 0;
    constexpr T HIGH = Is<T>::SIGNED ? static_cast<T>(static_cast<U<T>>(-1) >> 1) : static_cast<T>(-1);
    constexpr T LOW = Is<T>::SIGNED ? static_cast<T>(-HIGH - 1) : 0;
    if (x >= static_cast<F>(HIGH)) return HIGH;
    if (x <= static_cast<F>(LOW)) return LOW;
    return static_cast<T>(x);
}
template <class F>
inline F nearest(F x) { return __builtin_rint(x); }
template <class F>
inline F down(F x) { return __builtin_floor(x); }
template <class F>
inline F up(F x) { return __builtin_ceil(x); }
template <class F>
inline F cut(F x) { return __builtin_trunc(x); }

// Shared memory has addresses of its own: the number of a declaration, and the place in it.
struct Declaration {
    const char *name;
    u32 bytes, granule;  // 0 bytes: what the launch asks for
};
constexpr u32 WINDOW = 20;                     // bits of a place
constexpr u64 GENERIC = 0x4d50ull << 48;       // marks a shared address among the others
inline char *shared_at(const Declaration *declarations, u32 address) {
    u32 number = (address >> WINDOW) - 1;
    const Declaration &d = declarations[number];
    char *base = static_cast<char *>(
        d.bytes ? convdsl_shared(static_cast<int>(number), d.name, d.bytes, d.granule)
                : convdsl_dynamic_shared());
    return base + (address & ((1u << WINDOW) - 1));
}
inline char *generic_at(const Declaration *declarations, u64 address) {
    if (address >> 48 == GENERIC >> 48) return shared_at(declarations, static_cast<u32>(address));
    return reinterpret_cast<char *>(address);
}

// What a matrix descriptor names: lines of 128 bytes that are exchanged among eight of them ("Matrix
// Descriptor Format": bits 0-13 the address, 16-29 and 32-45 what lies between, 49-51 an offset,
// 62-63 how lines are exchanged, each but the latter two in units of sixteen bytes).
// `apart`: bytes from a block of 64 rows to the next one, where they lie across; else it says nothing.
inline const void *lines_at(u64 descriptor, u64 apart) {
    if (apart && (descriptor >> 16 & 0x3fff) << 4 != apart)
        convdsl_fail("a descriptor of blocks that are apart otherwise");
    u64 between = descriptor >> 32 & 0x3fff, offset = descriptor >> 49 & 7, how = descriptor >> 62;
    if (between != 1024 / 16 || offset != 0 || how != 1)
        convdsl_fail("a descriptor of lines that lie otherwise");
    return static_cast<const char *>(convdsl_dynamic_shared()) + ((descriptor & 0x3fff) << 4);
}

template <class T>
inline T get(const char *at, int lane = 0) {
    T made;
    __builtin_memcpy(&made, at + lane * sizeof(T), sizeof(T));
    return made;
}
template <class T>
inline void put(char *at, T x, int lane = 0) {
    __builtin_memcpy(at + lane * sizeof(T), &x, sizeof(T));
}

// Special registers
inline u32 number_in_block() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
inline u32 laneid() { return number_in_block() % 32; }

struct Shuffled {
    b32 value;
    u32 from;
    bool inside;
    b32 made;
};
CONVDSL_UNNOTED inline void shuffle_lanes(void *const *lanes) {
    for (u32 lane = 0; lane < 32; lane++) {
        if (!lanes[lane]) continue;
        Shuffled &mine = *static_cast<Shuffled *>(lanes[lane]);
        if (!lanes[mine.from]) convdsl_fail("shfl from a lane that is not there");
        mine.made = static_cast<const Shuffled *>(lanes[mine.from])->value;
    }
}
enum Shuffle { UP, DOWN, BFLY, IDX };
inline b32 shfl(int site, Shuffle how, b32 value, u32 b, u32 c, u32 mask, bool &inside) {
    u32 lane = laneid(), clamp = c & 31, segment = c >> 8 & 31;
    u32 highest = (lane & segment) | (clamp & ~segment), lowest = lane & segment;
    u32 from = lane;
    b &= 31;
    switch (how) {
        case UP: from = lane - b; inside = static_cast<s32>(from) >= static_cast<s32>(highest); break;
        case DOWN: from = lane + b; inside = from <= highest; break;
        case BFLY: from = lane ^ b; inside = from <= highest; break;
        case IDX: from = lowest | (b & ~segment); inside = from <= highest; break;
    }
    if (!inside) from = lane;
    Shuffled mine{value, from & 31, inside, 0};
    convdsl_meet(mask, site, &mine, shuffle_lanes);
    return mine.made;
}
inline void nothing(void *const *) {}

}  // namespace ptx

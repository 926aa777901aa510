// Arithmetic as the loop IR means it, in plain C: the same on every processor.

typedef unsigned char u8;
typedef signed char i8;
typedef int i32;
typedef long long i64;
typedef unsigned u32;
typedef unsigned long long u64;
typedef unsigned short f16;   // the bits
typedef unsigned short bf16;  // the bits
typedef float f32;
typedef double f64;

#define ARITHMETIC __device__ __forceinline__

// Indices
template <class T> ARITHMETIC T least(T a, T b) { return a < b ? a : b; }
template <class T> ARITHMETIC T largest(T a, T b) { return a > b ? a : b; }
ARITHMETIC i64 clamped(i64 x, i64 low, i64 high) { return x < low ? low : x > high ? high : x; }

// Of integers, which wrap
ARITHMETIC i64 add(i64 a, i64 b) { return (i64)((u64)a + (u64)b); }
ARITHMETIC i64 sub(i64 a, i64 b) { return (i64)((u64)a - (u64)b); }
ARITHMETIC i64 mul(i64 a, i64 b) { return (i64)((u64)a * (u64)b); }
ARITHMETIC i64 negated(i64 a) { return (i64)(0 - (u64)a); }
ARITHMETIC i64 absolute(i64 a) { return a < 0 ? negated(a) : a; }
ARITHMETIC u32 shifted_left(u32 a, u32 b) { return b < 32 ? a << b : 0u; }
ARITHMETIC u32 shifted_right(u32 a, u32 b) { return b < 32 ? a >> b : 0u; }
ARITHMETIC u32 upper_half(u32 a, u32 b) { return (u32)((u64)a * b >> 32); }

// Extrema of floats hand NaN on
template <class T> ARITHMETIC T maximum(T a, T b) { return a > b || a != a ? a : b; }
template <class T> ARITHMETIC T minimum(T a, T b) { return a < b || a != a ? a : b; }

// Parts of a float: 2**x of an integral x; x = mantissa * 2**exponent of a normal positive x
ARITHMETIC f32 power_of_two(f32 x) { return __int_as_float((__float_as_int(x + 12583039.0f)) << 23); }
ARITHMETIC f32 lifted(f32 x, f32 factor) { return fmaf(x, factor, 12583039.0f); }
ARITHMETIC f32 power_of_lifted(f32 x) { return __int_as_float(__float_as_int(x) << 23); }
ARITHMETIC f32 exponent(f32 x) { return (f32)(__float_as_int(x) >> 23) - 126.0f; }
ARITHMETIC f32 mantissa(f32 x) { return __int_as_float((__float_as_int(x) & 0x7fffff) | 0x3f000000); }
ARITHMETIC f64 power_of_two(f64 x) {
    return __longlong_as_double(__double_as_longlong(x + 6755399441056767.0) << 52);
}
ARITHMETIC f64 lifted(f64 x, f64 factor) { return fma(x, factor, 6755399441056767.0); }
ARITHMETIC f64 power_of_lifted(f64 x) { return __longlong_as_double(__double_as_longlong(x) << 52); }
ARITHMETIC f64 exponent(f64 x) { return (f64)(__double_as_longlong(x) >> 52) - 1022.0; }
ARITHMETIC f64 mantissa(f64 x) {
    return __longlong_as_double((__double_as_longlong(x) & 0xfffffffffffffll) | 0x3fe0000000000000ll);
}
ARITHMETIC f32 scaled(f32 x, f32 n) {
    f32 first = minimum(127.0f, n);
    return x * power_of_two(first) * (n - first + 1.0f);
}
ARITHMETIC f64 scaled(f64 x, f64 n) {
    f64 first = minimum(1023.0, n);
    return x * power_of_two(first) * (n - first + 1.0);
}

// Where a number stands among all others: zeros together, a NaN after infinity
ARITHMETIC i64 order(f32 x) {
    i32 bits = __float_as_int(x + 0.0f);
    return x != x ? 0x7fffffff : bits ^ (i32)((u32)(bits >> 31) >> 1);
}
ARITHMETIC i64 order(f64 x) {
    i64 bits = __double_as_longlong(x + 0.0);
    return x != x ? 0x7fffffffffffffffll : bits ^ (i64)((u64)(bits >> 63) >> 1);
}

// Casts: floats towards zero by way of i64, whose ends stand for all beyond; NaN is 0
template <class T> ARITHMETIC i64 to_i64(T x) {
    if (x != x) return 0;
    if (x >= (T)9223372036854775808.0) return 0x7fffffffffffffffll;
    if (x <= (T)-9223372036854775808.0) return (i64)0x8000000000000000ull;
    return (i64)x;
}

ARITHMETIC f32 from_bf16(bf16 x) { return __int_as_float((int)((u32)x << 16)); }

// The f32 next to an f64 that rounding again rounds as it would have been
ARITHMETIC f32 rounded_to_odd(f64 x) {
    f32 near = (f32)x;
    f64 back = near;
    u32 bits = (u32)__float_as_int(near);
    if (back == x || x != x) return near;
    return __int_as_float((int)((fabs(back) > fabs(x) ? bits - 1u : bits) | 1u));
}
ARITHMETIC f16 to_f16(f64 x) { return to_f16(rounded_to_odd(x)); }
ARITHMETIC bf16 to_bf16(f64 x) { return to_bf16(rounded_to_odd(x)); }

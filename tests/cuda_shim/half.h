// Floats of 16 bits, by their bits.
#pragma once

namespace convdsl {

inline float float_of(unsigned bits) { return __builtin_bit_cast(float, bits); }
inline unsigned bits_of(float x) { return __builtin_bit_cast(unsigned, x); }

struct BFloat16 {
    static float widen(unsigned bits) { return float_of(bits << 16); }
    static unsigned narrow(float x) {  // to the nearest, ties to even
        unsigned bits = bits_of(x);
        if (x != x) return 0x7fff;
        return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
};

struct Float16 {
    static float widen(unsigned bits) {
        return static_cast<float>(
            __builtin_bit_cast(_Float16, static_cast<unsigned short>(bits)));
    }
    static unsigned narrow(float x) {
        if (x != x) return 0x7fff;
        return __builtin_bit_cast(unsigned short, static_cast<_Float16>(x));
    }
};

inline float to_tf32(float x) {  // cvt.rna.tf32: to the nearest, ties away from zero
    unsigned bits = bits_of(x);
    if (x != x || (bits & 0x7fffffff) == 0x7f800000) return x;
    return float_of((bits + 0x1000) & 0xffffe000);
}

}  // namespace convdsl

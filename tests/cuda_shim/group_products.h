// What a warp does of the products of its group (wgmma), from the PTX manual (ISA 8.5, 9.7.15: "Matrix
// Fragments" of .m64nNk8 and .m64nNk16, "Shared Memory Matrix Layout" with 128-byte swizzling).
//
// test_group_fragments.py holds this to the manual's formulas.
#pragma once

#include "engine.h"
#include "tensor_cores.h"

namespace convdsl {

struct Lines {
    const char *a, *b;  // where 64 lines and as many as there are columns begin
    const float *c;
    float *d;
};

// Bits 4 to 6 of an address are exchanged by bits 7 to 9.
inline const char *exchanged(const char *at) {
    auto address = reinterpret_cast<unsigned long>(at);
    return reinterpret_cast<const char *>(address ^ (address >> 7 & 7) << 4);
}

template <class Kind>
CONVDSL_UNNOTED inline void take_line(const char *line, float *out) {
    constexpr int EACH = 4 * Kind::PACKED;  // elements of sixteen bytes
    for (int piece = 0; piece < 2; piece++) {
        unsigned words[4];
        convdsl_take(exchanged(line + 16 * piece), 16, words);
        for (int i = 0; i < EACH; i++)
            out[piece * EACH + i] = Kind::value(words[i / Kind::PACKED], i % Kind::PACKED);
    }
}

// Eight neighbouring rows at each depth, from lines of 64 rows; a block of 64 rows is APART bytes long.
template <class Kind, int APART, int K>
CONVDSL_UNNOTED inline void take_across(const char *from, int row, float (*out)[K]) {
    for (int depth = 0; depth < K; depth++) {
        unsigned words[4];
        convdsl_take(exchanged(from + row / 64 * APART + depth * 128 + row % 64 * 2), 16, words);
        for (int i = 0; i < 8; i++) out[i][depth] = Kind::value(words[i / 2], i % 2);
    }
}

template <class Kind, int COLUMNS, int APART>
CONVDSL_UNNOTED void multiply_lines(void *const *lanes) {
    constexpr int K = 8 * Kind::PACKED;
    static float a[16][K], b[COLUMNS][K];
    const Lines &first = *static_cast<const Lines *>(lanes[0]);
    for (int lane = 0; lane < 32; lane++) {
        const Lines &mine = *static_cast<const Lines *>(lanes[lane]);
        if (mine.a != first.a || mine.b != first.b) convdsl_fail("wgmma of several descriptors");
    }
    int own = convdsl_warp() % 4 * 16;
    if constexpr (APART > 0) {
        for (int row = 0; row < 16; row += 8)
            take_across<Kind, APART, K>(first.a, own + row, a + row);
        for (int column = 0; column < COLUMNS; column += 8)
            take_across<Kind, APART, K>(first.b, column, b + column);
    } else {
        for (int row = 0; row < 16; row++) take_line<Kind>(first.a + (own + row) * 128, a[row]);
        for (int column = 0; column < COLUMNS; column++)
            take_line<Kind>(first.b + column * 128, b[column]);
    }
    for (int lane = 0; lane < 32; lane++) {
        const Lines &mine = *static_cast<const Lines *>(lanes[lane]);
        for (int i = 0; i < COLUMNS / 2; i++) {
            int row = lane / 4 + (i & 2 ? 8 : 0), column = i / 4 * 8 + lane % 4 * 2 + (i & 1);
            double sum = 0;  // exact products, rounded once
            for (int k = 0; k < K; k++) sum += static_cast<double>(a[row][k]) * b[column][k];
            mine.d[i] = static_cast<float>(mine.c[i] + sum);
        }
    }
}

template <class Kind, int COLUMNS, int APART>
CONVDSL_UNNOTED inline void begin_product(
    int site, float *sums, const void *a, const void *b, int at_once) {
    float c[COLUMNS / 2], d[COLUMNS / 2];
    convdsl_sums(sums, COLUMNS / 2, c);
    Lines mine{static_cast<const char *>(a), static_cast<const char *>(b), c, d};
    convdsl_meet(~0u, site, &mine, multiply_lines<Kind, COLUMNS, APART>);
    convdsl_begun(sums, COLUMNS / 2, d, at_once);
}

}  // namespace convdsl

// What a warp's matrix instructions do, from the PTX manual (ISA 8.x, chapters "Matrix Fragments
// for mma.m16n8k8", "... m16n8k16", "ldmatrix"): which lane holds which element in which register.
//
// test_fragments.py holds this to tables written down from the manual.
#pragma once

#include "engine.h"
#include "half.h"

// Acts for all lanes, whose accesses are noted elsewhere.
#define CONVDSL_UNNOTED __attribute__((no_sanitize("thread"), noinline))

namespace convdsl {

struct Mma {
    float *d;
    const unsigned *a, *b;
    const float *c;
};

struct Tf32 {  // one element a register; the multiplier takes 10 bits of the mantissa
    static constexpr int K = 8, A = 4, B = 2, PACKED = 1;
    static float value(unsigned bits, int) { return float_of(bits & 0xffffe000u); }
    static void a_at(int lane, int i, int &row, int &k) {
        row = lane / 4 + (i & 1 ? 8 : 0);
        k = lane % 4 + (i & 2 ? 4 : 0);
    }
    static void b_at(int lane, int i, int &k, int &column) {
        k = lane % 4 + (i ? 4 : 0);
        column = lane / 4;
    }
};

template <class Number, int DEPTH>
struct Halves {  // two elements a register, the first one in the lower half
    static constexpr int K = DEPTH, A = DEPTH / 4, B = DEPTH / 8, PACKED = 2;
    static float value(unsigned bits, int half) { return Number::widen(bits >> (16 * half)); }
    static void a_at(int lane, int i, int &row, int &k) {  // i counts elements
        row = lane / 4 + (i & 2 ? 8 : 0);
        k = lane % 4 * 2 + (i & 1) + (i & 4 ? 8 : 0);
    }
    static void b_at(int lane, int i, int &k, int &column) {
        k = lane % 4 * 2 + (i & 1) + (i & 2 ? 8 : 0);
        column = lane / 4;
    }
};

template <class Kind>
CONVDSL_UNNOTED void multiply(void *const *lanes) {
    float a[16][Kind::K], b[Kind::K][8];
    for (int lane = 0; lane < 32; lane++) {
        if (!lanes[lane]) convdsl_fail("mma without all 32 lanes");
        const Mma &mine = *static_cast<const Mma *>(lanes[lane]);
        for (int i = 0; i < Kind::A * Kind::PACKED; i++) {
            int row, k;
            Kind::a_at(lane, i, row, k);
            a[row][k] = Kind::value(mine.a[i / Kind::PACKED], i % Kind::PACKED);
        }
        for (int i = 0; i < Kind::B * Kind::PACKED; i++) {
            int k, column;
            Kind::b_at(lane, i, k, column);
            b[k][column] = Kind::value(mine.b[i / Kind::PACKED], i % Kind::PACKED);
        }
    }
    for (int lane = 0; lane < 32; lane++) {
        const Mma &mine = *static_cast<const Mma *>(lanes[lane]);
        for (int i = 0; i < 4; i++) {
            int row = lane / 4 + (i & 2 ? 8 : 0), column = lane % 4 * 2 + (i & 1);
            double sum = 0;  // exact products, rounded once
            for (int k = 0; k < Kind::K; k++) sum += static_cast<double>(a[row][k]) * b[k][column];
            mine.d[i] = static_cast<float>(mine.c[i] + sum);
        }
    }
}

template <class Kind>
inline void mma(int site, float *d, const unsigned *a, const unsigned *b, const float *c) {
    Mma mine{d, a, b, c};
    convdsl_meet(~0u, site, &mine, multiply<Kind>);
}

struct Rows {
    unsigned *out;
    const void *row;  // of 8 elements of 16 bits
};

// Lane 8 m + r names row r of matrix m; every lane gets of each matrix two neighbours.
template <int MATRICES, bool TRANSPOSED>
CONVDSL_UNNOTED void load_matrices(void *const *lanes) {
    for (int lane = 0; lane < 32; lane++) {
        if (!lanes[lane]) convdsl_fail("ldmatrix without all 32 lanes");
        for (int m = 0; m < MATRICES; m++) {
            unsigned halves[2];
            for (int i = 0; i < 2; i++) {
                int row = lane / 4, column = lane % 4 * 2 + i;
                int named = TRANSPOSED ? column : row, at = TRANSPOSED ? row : column;
                const Rows &other = *static_cast<const Rows *>(lanes[8 * m + named]);
                halves[i] = static_cast<const unsigned short *>(other.row)[at];
            }
            static_cast<const Rows *>(lanes[lane])->out[m] = halves[0] | halves[1] << 16;
        }
    }
}

template <int MATRICES, bool TRANSPOSED>
inline void ldmatrix(int site, unsigned *out, const void *row, int lane) {
    Rows mine{out, row};
    if (lane < 8 * MATRICES) convdsl_touch(row, 16, 0);
    convdsl_meet(~0u, site, &mine, load_matrices<MATRICES, TRANSPOSED>);
}

}  // namespace convdsl

// What only a GPU has. Whoever runs the source elsewhere puts something else in the place of this.

#define ON_CARD __device__ __forceinline__

// Copies to shared memory that go on behind: `valid` bytes, zeros for the rest of SIZE
template <int SIZE> ON_CARD void copy_async(void* to, const void* from, int valid) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    if (SIZE == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
            :: "r"(at), "l"(from), "r"(valid) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
            :: "r"(at), "l"(from), "n"(SIZE), "r"(valid) : "memory");
    }
}
ON_CARD void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> ON_CARD void wait_copies() {
    asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory");
}

// Halves by their bits. sm_75 knows no bf16: half a unit is added, less where the last digit is even
ON_CARD float from_f16(unsigned short x) {
    float made;
    asm("cvt.f32.f16 %0, %1;" : "=f"(made) : "h"(x));
    return made;
}
ON_CARD unsigned short to_f16(float x) {
#if __CUDA_ARCH__ >= 800 // alone, ptxas takes it ahead of the wait for sums of warp groups
    unsigned made;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(made) : "f"(0.0f), "f"(x));
    return (unsigned short)made;
#else
    unsigned short made;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(made) : "f"(x));
    return made;
#endif
}
ON_CARD unsigned short to_bf16(float x) {
#if __CUDA_ARCH__ >= 800
    unsigned short made;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(made) : "f"(x));
    return made;
#else
    unsigned bits = __float_as_uint(x);
    return x != x ? 0x7fff : (unsigned short)((bits + (bits >> 16 & 1) + 0x7fff) >> 16);
#endif
}

// What tensor units read: tf32 in the place of an f32, two halves in one register
ON_CARD float tf32(float x) { // cvt.rna.tf32 in 2 to 3 instructions: ptxas makes 5 to 7 of its own
    unsigned bits = __float_as_uint(x);
    return __uint_as_float((bits + (x == x ? 0x1000u : 0u)) & 0xffffe000u);
}
ON_CARD unsigned pair_of_bf16(float lower, float upper) {
#if __CUDA_ARCH__ >= 800
    unsigned made;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(made) : "f"(upper), "f"(lower));
    return made;
#else
    return to_bf16(lower) | (unsigned)to_bf16(upper) << 16;
#endif
}
ON_CARD unsigned pair_of_f16(float lower, float upper) {
    unsigned made;
#if __CUDA_ARCH__ >= 800
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(made) : "f"(upper), "f"(lower));
#else
    asm("{ .reg .b16 l, u; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 u, %2; mov.b32 %0, {l, u}; }"
        : "=r"(made) : "f"(lower), "f"(upper));
#endif
    return made;
}

// sums += a b of 16 x K and K x 8, as a warp holds them
#define SUMS float &s0, float &s1, float &s2, float &s3
#define MMA_4_2(name, form)                                                                \
    ON_CARD void name(SUMS, unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, \
        unsigned b1) {                                                                     \
        asm("mma.sync.aligned." form                                                       \
            " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"             \
            : "+f"(s0), "+f"(s1), "+f"(s2), "+f"(s3)                                       \
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));                       \
    }
MMA_4_2(mma_m16n8k8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
MMA_4_2(mma_m16n8k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
MMA_4_2(mma_m16n8k16_f16, "m16n8k16.row.col.f32.f16.f16.f32")
ON_CARD void mma_m16n8k8_f16(SUMS, unsigned a0, unsigned a1, unsigned b0) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"
        " {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(s0), "+f"(s1), "+f"(s2), "+f"(s3) : "r"(a0), "r"(a1), "r"(b0));
}

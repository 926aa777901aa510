// What kernels on a processor ask of the machine that runs them; engine.cpp is that machine.
#pragma once

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
};

#ifdef CONVDSL_ENGINE
#define CONVDSL_CONSTANT
#else
#define CONVDSL_CONSTANT const
#endif

extern "C" {
// Constant while one thread runs, and so for all that the compiler sees of a kernel.
extern CONVDSL_CONSTANT uint3 threadIdx, blockIdx;
extern CONVDSL_CONSTANT dim3 blockDim, gridDim;

// All threads of the block meet here; `site` tells one place in the source from another.
void convdsl_barrier(int site);

// Lanes of `mask` in the warp meet; the last one to come calls `act` with what each has brought,
// null for lanes that are not among them.
void convdsl_meet(unsigned mask, int site, void *mine, void (*act)(void *const *lanes));

// This block's memory for one declaration. It holds nothing at first: NaN, and reads are reports.
void *convdsl_shared(int declaration, const char *name, unsigned bytes, unsigned granule);

// Of the memory that the launch asked for.
void *convdsl_dynamic_shared(void);

// Copies from global to shared memory that complete at the wait, or at once: `valid` bytes, the
// rest of `size` zero.
void convdsl_copy(void *to, const void *from, unsigned size, unsigned valid);
void convdsl_commit(void);
void convdsl_wait(unsigned left);

// Products of a warp group. Bytes of a factor as they are now, for the product that this thread
// begins next; they must have been shown to products, and stay as they are until the wait.
void convdsl_take(const void *at, unsigned bytes, void *out);
// Sums as the next product finds them: those that others are adding to included.
void convdsl_sums(const float *sums, unsigned count, float *out);
// A product has begun, and has made these of its sums: they hold it after the wait, or at once.
void convdsl_begun(float *sums, unsigned count, const float *made, int at_once);
void convdsl_open_products(void);
void convdsl_commit_products(void);
void convdsl_wait_products(unsigned left);
void convdsl_show_products(void);
// The number of this thread's warp in the block.
unsigned convdsl_warp(void);

// Note an access that no compiler has noted.
void convdsl_touch(const void *at, unsigned bytes, int write);

[[noreturn]] void convdsl_fail(const char *what);

// Runs one launch of a library that lies between these bounds; 0, or 1 with a message.
int convdsl_launch_of(const void *launch, const char *begin, const char *end);
}

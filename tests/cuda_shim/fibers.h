// Threads of a grid as fibers: each has a stack, and hands the processor on by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <sys/mman.h>

constexpr size_t STACK = 64 << 10;  // bytes; only what is touched takes memory

#if defined(__x86_64__)
// Saves what a callee must keep on the stack that is left, and takes it from the one entered.
extern "C" void fiber_switch(void **left, void *entered);
asm(R"(
.text
.hidden fiber_switch
.globl fiber_switch
.type fiber_switch, @function
fiber_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size fiber_switch, .-fiber_switch
)");

struct Context {
    void *sp = nullptr;

    void begin(char *stack, void (*entry)()) {
        auto **top = reinterpret_cast<void **>(stack + STACK);
        *--top = nullptr;  // where entry would return to: it never does
        *--top = reinterpret_cast<void *>(entry);
        sp = top - 6;  // six registers, whatever they hold
    }
    static void change(Context &left, Context &entered) { fiber_switch(&left.sp, entered.sp); }
};
#else
#include <ucontext.h>

struct Context {
    ucontext_t state;

    void begin(char *stack, void (*entry)()) {
        getcontext(&state);
        state.uc_stack.ss_sp = stack;
        state.uc_stack.ss_size = STACK;
        state.uc_link = nullptr;
        makecontext(&state, entry, 0);
    }
    static void change(Context &left, Context &entered) {
        swapcontext(&left.state, &entered.state);
    }
};
#endif

// Stacks side by side, kept for as long as the process lives.
struct Stacks {
    static constexpr uint64_t CANARY = 0x5afe5afe5afe5afe;
    char *base = nullptr;
    size_t count = 0;

    void reserve(size_t wanted) {
        if (wanted <= count) return;
        if (base) munmap(base, count * STACK);
        int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void *made = mmap(nullptr, wanted * STACK, PROT_READ | PROT_WRITE, how, -1, 0);
        if (made == MAP_FAILED) abort();
        base = static_cast<char *>(made);
        count = wanted;
    }
    char *at(size_t number) { return base + number * STACK; }
    void mark(size_t number) { *reinterpret_cast<uint64_t *>(at(number)) = CANARY; }
    bool overrun(size_t number) { return *reinterpret_cast<uint64_t *>(at(number)) != CANARY; }
};

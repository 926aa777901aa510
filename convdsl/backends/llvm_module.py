"""A whole program as one LLVM module with one exported function, `convdsl_run`.

`convdsl_run(context)` is the body of a parallel region: every thread of the team enters it.
`context` is a table of pointers, its slots as in kernel.program.

The team size is asked for inside the region, so it is what was really granted. Denormals are
flushed to zero inside, and the caller's floating-point mode is restored on the way out.
"""

from __future__ import annotations

from convdsl.backends.llvm_ir import KernelPrinter, attributes_of
from convdsl.kernel.program import (
    ARENA,
    BARRIER,
    ENTRY,
    PORTS,
    TIMES,
    WEIGHTS,
    Argument,
    Place,
    Program,
)
from convdsl.kernel.target import Target
from convdsl.kernel.verify import verify_kernel

_BARRIER = """define internal void @team_barrier(ptr %barrier, i64 %threads) #0 {
  %many = icmp ugt i64 %threads, 1
  br i1 %many, label %wait, label %done
wait:
  call void %barrier()
  br label %done
done:
  ret void
}"""

_TEAM = """  %ask_number = load ptr, ptr %slot1
  %ask_size = load ptr, ptr %slot2
  %alone = icmp eq ptr %ask_size, null
  br i1 %alone, label %start, label %team
team:
  %number = call i32 %ask_number()
  %size = call i32 %ask_size()
  %number64 = zext i32 %number to i64
  %size64 = zext i32 %size to i64
  br label %start
start:
  %tid = phi i64 [ 0, %entry ], [ %number64, %team ]
  %threads = phi i64 [ 1, %entry ], [ %size64, %team ]"""

# Flush results and operands that are denormal: MXCSR bits 15 and 6, FPCR bit 24.
_FLUSH_X86 = (
    """  %mode = alloca i32
  %flushing = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %mode)
  %old = load i32, ptr %mode
  %new = or i32 %old, 32832
  store i32 %new, ptr %flushing
  call void @llvm.x86.sse.ldmxcsr(ptr %flushing)""",
    "  call void @llvm.x86.sse.ldmxcsr(ptr %mode)",
    "declare void @llvm.x86.sse.stmxcsr(ptr)\ndeclare void @llvm.x86.sse.ldmxcsr(ptr)",
)
_FLUSH_ARM = (
    """  %old = call i64 @llvm.aarch64.get.fpcr()
  %new = or i64 %old, 16777216
  call void @llvm.aarch64.set.fpcr(i64 %new)""",
    "  call void @llvm.aarch64.set.fpcr(i64 %old)",
    "declare i64 @llvm.aarch64.get.fpcr()\ndeclare void @llvm.aarch64.set.fpcr(i64)",
)


_CLOCK = """define internal void @clock(ptr %times, i64 %step, i64 %tid) #0 {
  %first = icmp eq i64 %tid, 0
  br i1 %first, label %write, label %done
write:
  %now = call i64 @llvm.readcyclecounter()
  %where = getelementptr i64, ptr %times, i64 %step
  store i64 %now, ptr %where
  br label %done
done:
  ret void
}
declare i64 @llvm.readcyclecounter()"""


def print_module(program: Program, target: Target, timed: bool = False) -> str:
    """LLVM IR of the program. Every kernel is verified first. Timed code also writes the clock
    before the first step and after each one, in cycles of the processor's counter."""
    declarations: set[str] = set()
    parts: list[str] = []
    for kernel in program.kernels:
        verify_kernel(kernel)
        parts.append(KernelPrinter(kernel, declarations).print())
    flush = _flush(target)
    return "\n\n".join(
        [
            f'source_filename = "{program.name}"\ntarget triple = "{target.triple}"',
            *parts,
            _BARRIER,
            *([_CLOCK] if timed else []),
            _entry(program, flush, timed),
            "\n".join(sorted(declarations)) + "\n" + flush[2],
            attributes_of(target),
            '!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}',
        ]
    )


def _flush(target: Target) -> tuple[str, str, str]:
    if target.architecture in ("x86_64", "i686", "i386"):
        return _FLUSH_X86
    if target.architecture in ("aarch64", "arm64"):
        return _FLUSH_ARM
    return ("", "", "")


def _entry(program: Program, flush: tuple[str, str, str], timed: bool) -> str:
    ports = len(program.inputs) + len(program.outputs)
    lines = [f"define void @{ENTRY}(ptr %context) #0 {{", "entry:"]
    lines += [
        f"  %slot{slot} = getelementptr ptr, ptr %context, i64 {slot}"
        for slot in range(PORTS + ports)
    ]
    lines += [f"  %barrier = load ptr, ptr %slot{BARRIER}", _TEAM, flush[0]]
    for slot in range(WEIGHTS, PORTS + ports):
        lines.append(f"  %base{slot} = load ptr, ptr %slot{slot}")
    clock = f"  call void @clock(ptr %base{TIMES}, i64 {{}}, i64 %tid)"
    for number, step in enumerate(program.steps):
        if number:
            lines.append("  call void @team_barrier(ptr %barrier, i64 %threads)")
        if timed:
            lines.append(clock.format(number))
        names: list[str] = []
        for position, argument in enumerate(step.arguments):
            name = f"%p{number}.{position}"
            base = f"%base{_slot(argument, program)}"
            lines.append(f"  {name} = getelementptr i8, ptr {base}, i64 {argument.offset}")
            names.append(f"ptr {name}")
        arguments = ", ".join([*names, "i64 %tid", "i64 %threads"])
        lines.append(f"  call void @{step.kernel}({arguments})")
    if timed:
        lines.append("  call void @team_barrier(ptr %barrier, i64 %threads)")
        lines.append(clock.format(len(program.steps)))
    return "\n".join([*lines, flush[1], "  ret void", "}"])


def _slot(argument: Argument, program: Program) -> int:
    match argument.place:
        case Place.WEIGHTS:
            return WEIGHTS
        case Place.ARENA:
            return ARENA
        case Place.INPUT:
            return PORTS + argument.slot
        case Place.OUTPUT:
            return PORTS + len(program.inputs) + argument.slot

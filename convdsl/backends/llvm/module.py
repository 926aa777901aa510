"""A whole program as one LLVM module with one exported function, `convdsl_run`.

`convdsl_run(context, stay)` is entered by every thread of a team: by the caller's with 0, by
helpers with the time that they stay awake when all is done, for a next call that may follow at
once. `context` is a table of pointers, its slots as in kernel.cpu_abi.

A step is cut into a few shares for each thread. Threads claim shares one after the other from
a counter, and go on to the next step when all shares of this one are done: no thread waits for
one that has nothing to do, or that the system has put aside before it could claim anything.
The caller takes shares from the first on and helpers from the last, so that each finds in its own
cache what it wrote a step before. Results do not depend on who computes what. A program with sums
over ranks runs in phases, a call each, between which its caller begins such sums and waits for
them. Denormals are
flushed to zero inside, and the caller's floating-point mode is restored on the way out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from convdsl.backends.llvm.ir import KernelPrinter, attributes_of
from convdsl.backends.llvm.team import STEPS, team_functions
from convdsl.kernel.cpu_abi import (
    ARENA,
    COUNTERS,
    COUNTERS_PER_STEP,
    MOST_SEATS,
    PORTS,
    SEATS,
    SHARES,
    TEAM_SIZE,
    TIMES,
    WEIGHTS,
)
from convdsl.kernel.joint import steps_apart
from convdsl.kernel.nodes import Kernel
from convdsl.kernel.program import Argument, Place, Program
from convdsl.kernel.target import Target
from convdsl.kernel.verify import verify_kernel
from convdsl.kernel.verify_program import part_bytes, verify_program

_TEAM = f"""  %threads = load i64, ptr %slot{TEAM_SIZE}
  %alone = icmp ule i64 %threads, 1
  %many = mul i64 %threads, {SHARES}
  %shares = select i1 %alone, i64 1, i64 %many"""

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


class Printed(NamedTuple):
    """A kernel as a function, and the intrinsics that it declares."""

    text: str
    declarations: frozenset[str]


def print_kernel(kernel: Kernel, target: Target) -> Printed:
    """LLVM IR of a kernel, which is verified first."""
    verify_kernel(kernel)
    declarations: set[str] = set()
    text = KernelPrinter(kernel, declarations, target).print()
    return Printed(text, frozenset(declarations))


def print_module(
    program: Program,
    target: Target,
    timed: bool = False,
    printed: Mapping[str, Printed] | None = None,
    apart: Collection[str] = (),
) -> str:
    """LLVM IR of the program. It and every kernel are verified first. Timed code also writes the
    clock before the first step and after each one, in cycles of the processor's counter. Kernels
    may have been printed before; those that are in modules of their own (`print_piece`) are
    declared only."""
    verify_program(program)
    known = printed or {}
    parts = [
        Printed(_declared(kernel), frozenset())
        if kernel.name in apart
        else known.get(kernel.name) or print_kernel(kernel, target)
        for kernel in program.kernels
    ]
    flush = _flush(target)
    steps = [
        team_functions(target),
        *([_CLOCK] if timed else []),
        _steps(program, flush, timed),
    ]
    return _module(program.name, target, parts, steps, flush[2])


def print_piece(kernels: Sequence[Printed], target: Target) -> str:
    """A module of kernels that another one calls."""
    shown = [k._replace(text=k.text.replace(_INTERNAL, _HIDDEN, 1)) for k in kernels]
    return _module("kernels", target, shown, (), "")


_INTERNAL, _HIDDEN = "define internal void @", "define hidden void @"


def _declared(kernel: Kernel) -> str:
    parameters = ["ptr" for _ in kernel.buffers]
    return f"declare hidden void @{kernel.name}({', '.join([*parameters, 'i64', 'i64'])})"


def _module(
    name: str, target: Target, kernels: Sequence[Printed], others: Sequence[str], declared: str
) -> str:
    declarations = frozenset[str]().union(*(kernel.declarations for kernel in kernels))
    return "\n\n".join(
        [
            f'source_filename = "{name}"\ntarget triple = "{target.triple}"',
            *(kernel.text for kernel in kernels),
            *others,
            "\n".join(sorted(declarations)) + "\n" + declared,
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


def _steps(program: Program, flush: tuple[str, str, str], timed: bool) -> str:
    ports = len(program.inputs) + len(program.outputs) + len(program.states)
    begun = enumerate(phase.first for phase in program.phases)
    starts = {step: number for number, step in begun if step < len(program.steps)}
    lines = [f"define internal void @{STEPS}(ptr %context, i64 %tid) #0 {{", "entry:"]
    lines += [
        f"  %slot{slot} = getelementptr ptr, ptr %context, i64 {slot}"
        for slot in range(PORTS + ports)
    ]
    lines += [_TEAM, flush[0]]
    for slot in range(WEIGHTS, PORTS + ports):
        lines.append(f"  %base{slot} = load ptr, ptr %slot{slot}")
    if program.sums:
        lines += _which_phase(PORTS + ports)
    if program.private_bytes:
        lines += _private(program, starts)
    if timed:
        lines.append(f"  call void @clock(ptr %base{TIMES}, i64 0, i64 %tid)")
    if program.sums:
        lines.append(_enter_phase(len(starts)))
    lines += _begin_round(program)
    apart = steps_apart(program)
    waiting: list[int] = []
    for number in range(len(program.steps)):
        if program.sums and number in starts:
            lines += ["  br label %leave"] if number else []
            lines += [f"phase{starts[number]}:"]
        lines += _step(program, number)
        waiting.append(number)
        if number not in apart or number + 1 in starts or number + 1 == len(program.steps):
            lines += [_wait(each) for each in waiting]
            waiting.clear()
        if timed:
            lines += _ticked(program, number)
    lines += _end_round(program)
    if program.private_bytes or program.sums:
        lines += ["  br label %leave", "leave:"]
    return "\n".join([*lines, flush[1], "  ret void", "}"])


def _begin_round(program: Program) -> list[str]:
    """Where the part of each input and output lies that a round is for, and its counters."""
    if program.rounds == 1:
        return []
    lines = ["  br label %first", "first:", "  br label %go", "go:"]
    lines.append("  %round = phi i64 [ 0, %first ], [ %following, %again ]")
    lines.append(f"  %ticks = mul i64 %round, {len(program.steps)}")
    lines.append(f"  %counts = mul i64 %ticks, {COUNTERS_PER_STEP}")
    lines.append(f"  %counters = getelementptr i64, ptr %base{COUNTERS}, i64 %counts")
    for slot, port in enumerate((*program.inputs, *program.outputs), PORTS):
        lines.append(f"  %from{slot} = mul i64 %round, {part_bytes(port, program.rounds)}")
        lines.append(f"  %part{slot} = getelementptr i8, ptr %base{slot}, i64 %from{slot}")
    return lines


def _ticked(program: Program, number: int) -> list[str]:
    """The clock after a step."""
    if program.rounds == 1:
        return [f"  call void @clock(ptr %base{TIMES}, i64 {number + 1}, i64 %tid)"]
    return [
        f"  %tick{number} = add i64 %ticks, {number + 1}",
        f"  call void @clock(ptr %base{TIMES}, i64 %tick{number}, i64 %tid)",
    ]


def _end_round(program: Program) -> list[str]:
    if program.rounds == 1:
        return []
    return [
        "  br label %again",
        "again:",
        "  %following = add i64 %round, 1",
        f"  %more = icmp ult i64 %following, {program.rounds}",
        "  br i1 %more, label %go, label %done",
        "done:",
    ]


def _which_phase(slot: int) -> list[str]:
    """Its number stands behind the ports."""
    return [
        f"  %numbered = getelementptr i64, ptr %context, i64 {slot}",
        "  %phase = load i64, ptr %numbered",
    ]


def _enter_phase(phases: int) -> str:
    """Of a last one without steps there is nothing to do."""
    cases = " ".join(f"i64 {number}, label %phase{number}" for number in range(phases))
    return f"  switch i64 %phase, label %leave [ {cases} ]"


def _private(program: Program, starts: Mapping[int, int]) -> list[str]:
    """Where this thread's private memory lies, behind the arena. The caller has the first seat,
    helpers take theirs in the order in which they come; one that finds none leaves. Joint steps
    have no such memory, and ranks that take them together no seats."""
    runs = program.joint.runs if program.joint is not None else ()
    joint = [n for step, n in starts.items() if any(a <= step < b for a, b in runs)]
    lines, helper = ["  %helper = icmp ne i64 %tid, 0"], "%helper"
    for number, phase in enumerate(joint):
        lines.append(f"  %other{number} = icmp ne i64 %phase, {phase}")
        lines.append(f"  %seated{number} = and i1 %other{number}, {helper}")
        helper = f"%seated{number}"
    return [
        *lines,
        f"  br i1 {helper}, label %sit, label %begin",
        "sit:",
        f"  %seats = getelementptr i64, ptr %base{COUNTERS}, i64 {SEATS}",
        "  %taken = atomicrmw add ptr %seats, i64 1 monotonic",
        "  %own = add i64 %taken, 1",
        f"  %large = icmp ugt i64 %threads, {MOST_SEATS}",
        f"  %most = select i1 %large, i64 {MOST_SEATS}, i64 %threads",
        "  %free = icmp ult i64 %own, %most",
        "  br i1 %free, label %begin, label %leave",
        "begin:",
        "  %seat = phi i64 [ 0, %entry ], [ %own, %sit ]",
        f"  %behind = mul i64 %seat, {program.private_bytes}",
        f"  %ahead = add i64 %behind, {program.arena_bytes}",
        f"  %private = getelementptr i8, ptr %base{ARENA}, i64 %ahead",
    ]


def _step(program: Program, number: int) -> list[str]:
    """Claim shares while there are any."""
    step = program.steps[number]
    names: list[str] = []
    lines: list[str] = []
    for position, argument in enumerate(step.arguments):
        name = f"%p{number}.{position}"
        base = f"%base{_slot(argument, program)}"
        if argument.place is Place.PRIVATE:
            base = "%private"
        elif argument.place in (Place.INPUT, Place.OUTPUT) and program.rounds > 1:
            base = f"%part{_slot(argument, program)}"
        lines.append(f"  {name} = getelementptr i8, ptr {base}, i64 {argument.offset}")
        names.append(f"ptr {name}")
    arguments = ", ".join([*names, f"i64 %share{number}", "i64 %shares"])
    claimed, done = number * COUNTERS_PER_STEP, number * COUNTERS_PER_STEP + COUNTERS_PER_STEP // 2
    counters = "%counters" if program.rounds > 1 else f"%base{COUNTERS}"
    return [
        *lines,
        f"  %claimed{number} = getelementptr i64, ptr {counters}, i64 {claimed}",
        f"  %done{number} = getelementptr i64, ptr {counters}, i64 {done}",
        f"  br label %claim{number}",
        f"claim{number}:",
        f"  %claims{number} = atomicrmw add ptr %claimed{number}, i64 1 monotonic",
        f"  %mine{number} = icmp ult i64 %claims{number}, %shares",
        f"  br i1 %mine{number}, label %work{number}, label %wait{number}",
        f"work{number}:",
        f"  %share{number} = call i64 @pick(ptr %claimed{number}, i64 %shares, i64 %tid)",
        f"  call void @{step.kernel}({arguments})",
        f"  %before{number} = atomicrmw add ptr %done{number}, i64 1 release",
        f"  br label %claim{number}",
        f"wait{number}:",
    ]


def _wait(number: int) -> str:
    """Wait until all shares of a step are done."""
    return f"  call void @await(ptr %done{number}, i64 %shares, ptr %context)"


def _slot(argument: Argument, program: Program) -> int:
    match argument.place:
        case Place.WEIGHTS:
            return WEIGHTS
        case Place.ARENA | Place.PRIVATE:
            return ARENA
        case Place.INPUT:
            return PORTS + argument.slot
        case Place.OUTPUT:
            return PORTS + len(program.inputs) + argument.slot
        case Place.STATE:
            return PORTS + len(program.inputs) + len(program.outputs) + argument.slot

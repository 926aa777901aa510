"""The steps of a program as LLVM IR: one function that walks a table.

A step is cut into a few shares for each thread. Threads claim shares one after the other from
a counter, and go on to the next step when all shares of this one are done: no thread waits for
one that has nothing to do, or that the system has put aside before it could claim anything.
The caller takes shares from the first on and helpers from the last, so that each finds in its own
cache what it wrote a step before. Results do not depend on who computes what. A program with sums
over ranks runs in phases, a call each, between which its caller begins such sums and waits for
them. Denormals are flushed to zero inside, and the caller's floating-point mode is restored on the
way out.

What a step calls and on which memory stands in constants, so that the code is as long for a
hundred steps as for one: LLVM takes as long for a line that calls as for one that multiplies, and
this function is the last that it gets (ADR 257). Kernels are named by their distances from where
they stand in the table, which are the same wherever code is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable

from convdsl.backends.llvm.team import STEPS
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
    YIELD,
)
from convdsl.kernel.joint import steps_apart
from convdsl.kernel.program import Argument, Place, Program
from convdsl.kernel.target import Target
from convdsl.kernel.verify_program import part_bytes

_PRIVATE = YIELD
"""Where the table says that an argument lies in a thread's own memory: no argument lies there."""

_BYTES = 8 * COUNTERS_PER_STEP
"""Of the counters of one step."""

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


def steps_function(program: Program, target: Target, timed: bool) -> tuple[str, str]:
    """The function with its tables, and what it declares. Timed code also writes the clock before
    the first step and after each one, in cycles of the processor's counter."""
    enter, leave, declared = _flush(target)
    lines = [f"define internal void @{STEPS}(ptr %context, i64 %tid) #0 {{", "entry:"]
    lines.append(f"  %operands = alloca [{max(_arities(program))} x ptr]")
    lines += [_slot("counters", COUNTERS), _team(), enter]
    if program.private_bytes:
        lines += _private(program)
    if timed:
        lines += [_slot("times", TIMES), "  call void @clock(ptr %times, i64 0, i64 %tid)"]
    lines += _which_steps(program)
    lines += _rounds(program)
    lines += ["each_step:", f"  %step = phi i64 [ {_first(program)}, %go ], [ %next, %finished ]"]
    lines += _operands(program)
    lines += _claim(program)
    lines += _await(program)
    lines += _finished(program, timed)
    lines += ["leave:", leave, "  ret void", "}"]
    parts = [_tables(program), *([_CLOCK] if timed else []), "\n".join(lines)]
    return "\n\n".join(parts), declared


def _flush(target: Target) -> tuple[str, str, str]:
    if target.architecture in ("x86_64", "i686", "i386"):
        return _FLUSH_X86
    if target.architecture in ("aarch64", "arm64"):
        return _FLUSH_ARM
    return ("", "", "")


# The tables


def _tables(program: Program) -> str:
    """What is called, with how many operands from which on, and of these bases and offsets."""
    arguments = [argument for step in program.steps for argument in step.arguments]
    firsts = [0]
    for step in program.steps:
        firsts.append(firsts[-1] + len(step.arguments))
    kernels = (_distance(step.kernel, number) for number, step in enumerate(program.steps))
    tables = [
        _table("code", "i32", kernels),
        _table("firsts", "i32", (f"i32 {first}" for first in firsts)),
        _table("bases", "i32", (f"i32 {_base(a, program)}" for a in arguments)),
        _table("offsets", "i64", (f"i64 {a.offset}" for a in arguments)),
    ]
    if program.sums:
        starts, ends = _runs(program)
        tables.append(_table("starts", "i32", (f"i32 {first}" for first in starts)))
        tables.append(_table("ends", "i32", (f"i32 {last}" for last in ends)))
        waited = (f"i32 {first}" for first in _waits(program))
        tables.append(_table("waits", "i32", waited))
    if program.rounds > 1:
        tables.append(_table("parts", "i64", (f"i64 {size}" for size in _parts(program))))
    return "\n".join(tables)


def _table(name: str, kind: str, entries: Iterable[str]) -> str:
    held = list(entries)
    return f"@{STEPS}.{name} = internal constant [{len(held)} x {kind}] [{', '.join(held)}]"


def _distance(kernel: str, number: int) -> str:
    """From where it stands in the table to the kernel: then a reference is to where that begins."""
    here = f"ptr getelementptr (i32, ptr @{STEPS}.code, i64 {number})"
    there = f"ptr @{kernel}"
    return (
        f"i32 trunc (i64 sub (i64 ptrtoint ({there} to i64), i64 ptrtoint ({here} to i64)) to i32)"
    )


def _base(argument: Argument, program: Program) -> int:
    """The slot of the context where an argument's memory is found."""
    match argument.place:
        case Place.WEIGHTS:
            return WEIGHTS
        case Place.ARENA:
            return ARENA
        case Place.PRIVATE:
            return _PRIVATE
        case Place.INPUT:
            return PORTS + argument.slot
        case Place.OUTPUT:
            return PORTS + len(program.inputs) + argument.slot
        case Place.STATE:
            return PORTS + len(program.inputs) + len(program.outputs) + argument.slot


def _runs(program: Program) -> tuple[list[int], list[int]]:
    """Of each phase the first step, and the one behind the last."""
    return [phase.first for phase in program.phases], [phase.last for phase in program.phases]


def _waits(program: Program) -> list[int]:
    """Of each step, from which one on the shares are waited for after it; none where the next may
    begin before."""
    apart, starts = steps_apart(program), set(_runs(program)[0])
    waits: list[int] = []
    first = 0
    for number in range(len(program.steps)):
        ends = number not in apart or number + 1 in starts or number + 1 == len(program.steps)
        waits.append(first if ends else number + 1)
        first = number + 1 if ends else first
    return waits


def _parts(program: Program) -> list[int]:
    """How far what lies behind each slot of the context moves on with each round."""
    ports = (*program.inputs, *program.outputs)
    return [0] * PORTS + [part_bytes(port, program.rounds) for port in ports]


def _arities(program: Program) -> list[int]:
    """How many operands kernels have, each once."""
    return sorted({len(step.arguments) for step in program.steps})


# The function


def _slot(name: str, slot: int, kind: str = "ptr") -> str:
    return (
        f"  %{name}_slot = getelementptr ptr, ptr %context, i64 {slot}\n"
        f"  %{name} = load {kind}, ptr %{name}_slot"
    )


def _entry(name: str, table: str, kind: str, index: str) -> list[str]:
    """One number of a table, in 64 bits."""
    held = name if kind == "i64" else f"{name}_short"
    lines = [
        f"  %{name}_at = getelementptr {kind}, ptr @{STEPS}.{table}, i64 {index}",
        f"  %{held} = load {kind}, ptr %{name}_at",
    ]
    return lines if kind == "i64" else [*lines, f"  %{name} = sext i32 %{held} to i64"]


def _team() -> str:
    return f"""{_slot("threads", TEAM_SIZE, "i64")}
  %alone = icmp ule i64 %threads, 1
  %many = mul i64 %threads, {SHARES}
  %shares = select i1 %alone, i64 1, i64 %many"""


def _private(program: Program) -> list[str]:
    """Where this thread's private memory lies, behind the arena. The caller has the first seat,
    helpers take theirs in the order in which they come; one that finds none leaves. Joint steps
    have no such memory, and ranks that take them together no seats."""
    runs = program.joint.runs if program.joint is not None else ()
    starts = _runs(program)[0] if program.sums else []
    joint = [n for n, step in enumerate(starts) if any(a <= step < b for a, b in runs)]
    lines, helper = ["  %helper = icmp ne i64 %tid, 0"], "%helper"
    if joint:
        lines.append(_phase(program, "asked"))
    for number, phase in enumerate(joint):
        lines.append(f"  %other{number} = icmp ne i64 %asked, {phase}")
        lines.append(f"  %seated{number} = and i1 %other{number}, {helper}")
        helper = f"%seated{number}"
    return [
        *lines,
        _slot("arena", ARENA),
        f"  br i1 {helper}, label %sit, label %begin",
        "sit:",
        f"  %seats = getelementptr i64, ptr %counters, i64 {SEATS}",
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
        "  %private = getelementptr i8, ptr %arena, i64 %ahead",
    ]


def _phase(program: Program, name: str) -> str:
    """The number of the phase that is asked for, which stands behind the ports."""
    ports = len(program.inputs) + len(program.outputs) + len(program.states)
    return _slot(name, PORTS + ports, "i64")


def _which_steps(program: Program) -> list[str]:
    """From which step to which. Of a last phase without steps there is nothing to do."""
    if not program.sums:
        return ["  br label %ready", "ready:"]
    return [
        _phase(program, "phase"),
        *_entry("start", "starts", "i32", "%phase"),
        *_entry("end", "ends", "i32", "%phase"),
        "  %none = icmp eq i64 %start, %end",
        "  br i1 %none, label %leave, label %ready",
        "ready:",
    ]


def _first(program: Program) -> str:
    return "%start" if program.sums else "0"


def _rounds(program: Program) -> list[str]:
    """Each round has counters of its own."""
    lines = ["  br label %go", "go:"]
    if program.rounds == 1:
        return [*lines, "  br label %each_step"]
    return [
        *lines,
        "  %round = phi i64 [ 0, %ready ], [ %following, %again ]",
        f"  %before = mul i64 %round, {len(program.steps)}",
        "  br label %each_step",
    ]


def _operands(program: Program) -> list[str]:
    """Where a step's operands lie."""
    base, offset = "%held", "%offset"
    lines = [
        *_entry("first", "firsts", "i32", "%step"),
        "  %next = add i64 %step, 1",
        *_entry("last", "firsts", "i32", "%next"),
        "  br label %operand",
        "operand:",
        "  %number = phi i64 [ %first, %each_step ], [ %number_after, %operand ]",
        *_entry("base", "bases", "i32", "%number"),
        *_entry("offset", "offsets", "i64", "%number"),
        "  %held_slot = getelementptr ptr, ptr %context, i64 %base",
        "  %held = load ptr, ptr %held_slot",
    ]
    if program.private_bytes:
        lines.append(f"  %inner = icmp eq i64 %base, {_PRIVATE}")
        lines.append("  %whose = select i1 %inner, ptr %private, ptr %held")
        base = "%whose"
    if program.rounds > 1:
        lines += _entry("part", "parts", "i64", "%base")
        lines.append("  %ahead_of = mul i64 %part, %round")
        lines.append("  %offset_now = add i64 %offset, %ahead_of")
        offset = "%offset_now"
    return [
        *lines,
        f"  %operand_value = getelementptr i8, ptr {base}, i64 {offset}",
        "  %position = sub i64 %number, %first",
        "  %operand_place = getelementptr ptr, ptr %operands, i64 %position",
        "  store ptr %operand_value, ptr %operand_place",
        "  %number_after = add i64 %number, 1",
        "  %more_operands = icmp slt i64 %number_after, %last",
        "  br i1 %more_operands, label %operand, label %called",
    ]


def _claim(program: Program) -> list[str]:
    """Claim shares while there are any."""
    arities = _arities(program)
    cases = " ".join(f"i64 {arity}, label %with{arity}" for arity in arities[1:])
    lines = [
        "called:",
        *_entry("distance", "code", "i32", "%step"),
        "  %kernel = getelementptr i8, ptr %distance_at, i64 %distance",
        "  %arity = sub i64 %last, %first",
        *_counters(program, "step", "claimed"),
        f"  %done = getelementptr i8, ptr %claimed, i64 {_BYTES // 2}",
        "  br label %claim",
        "claim:",
        "  %claims = atomicrmw add ptr %claimed, i64 1 monotonic",
        "  %mine = icmp ult i64 %claims, %shares",
        "  br i1 %mine, label %work, label %wait",
        "work:",
        "  %share = call i64 @pick(ptr %claimed, i64 %shares, i64 %tid)",
        f"  switch i64 %arity, label %with{arities[0]} [{cases}]",
    ]
    for arity in arities:
        lines += [f"with{arity}:", *_call(arity)]
    return [
        *lines,
        "worked:",
        "  %dones = atomicrmw add ptr %done, i64 1 release",
        "  br label %claim",
    ]


def _call(arity: int) -> list[str]:
    """A kernel called with so many operands."""
    lines: list[str] = []
    for n in range(arity):
        lines.append(f"  %place{arity}.{n} = getelementptr ptr, ptr %operands, i64 {n}")
        lines.append(f"  %p{arity}.{n} = load ptr, ptr %place{arity}.{n}")
    handed = ", ".join([*(f"ptr %p{arity}.{n}" for n in range(arity)), "i64 %share, i64 %shares"])
    return [*lines, f"  call void %kernel({handed})", "  br label %worked"]


def _counters(program: Program, step: str, name: str) -> list[str]:
    """Where the counters of a step lie."""
    lines, number = list[str](), f"%{step}"
    if program.rounds > 1:
        lines.append(f"  %{name}_number = add i64 %before, %{step}")
        number = f"%{name}_number"
    return [
        *lines,
        f"  %{name}_bytes = mul i64 {number}, {_BYTES}",
        f"  %{name} = getelementptr i8, ptr %counters, i64 %{name}_bytes",
    ]


def _await(program: Program) -> list[str]:
    """Wait until all shares are done, of this step or of several."""
    if not program.sums:
        return [
            "wait:",
            "  call void @await(ptr %done, i64 %shares, ptr %context)",
            "  br label %finished",
        ]
    return [
        "wait:",
        *_entry("since", "waits", "i32", "%step"),
        "  br label %look",
        "look:",
        "  %each = phi i64 [ %since, %wait ], [ %each_after, %waiting ]",
        "  %left = icmp sle i64 %each, %step",
        "  br i1 %left, label %waiting, label %finished",
        "waiting:",
        *_counters(program, "each", "counted"),
        f"  %each_done = getelementptr i8, ptr %counted, i64 {_BYTES // 2}",
        "  call void @await(ptr %each_done, i64 %shares, ptr %context)",
        "  %each_after = add i64 %each, 1",
        "  br label %look",
    ]


def _finished(program: Program, timed: bool) -> list[str]:
    """The clock, the next step, the next round."""
    lines = ["finished:"]
    if timed:
        tick = "%next"
        if program.rounds > 1:
            lines.append("  %tick = add i64 %before, %next")
            tick = "%tick"
        lines.append(f"  call void @clock(ptr %times, i64 {tick}, i64 %tid)")
    end = "%end" if program.sums else f"{len(program.steps)}"
    lines.append(f"  %more_steps = icmp slt i64 %next, {end}")
    if program.rounds == 1:
        return [*lines, "  br i1 %more_steps, label %each_step, label %leave"]
    return [
        *lines,
        "  br i1 %more_steps, label %each_step, label %again",
        "again:",
        "  %following = add i64 %round, 1",
        f"  %more_rounds = icmp ult i64 %following, {program.rounds}",
        "  br i1 %more_rounds, label %go, label %leave",
    ]

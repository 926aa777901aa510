"""Loop IR -> LLVM IR, as text, printed the plainest way.

Every register is an alloca, which LLVM makes a value of; loops are tested at their ends; index
arithmetic is written once, in the loop that it belongs to (`text`). So few of LLVM's passes
are needed (`objects` has the list, docs/performance.md the measurements). Serial loops carry
`llvm.loop.unroll.disable`: schedules unroll what is to be unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from convdsl.backends.llvm.text import Level, memory_type, type_of
from convdsl.backends.llvm.values import ValuePrinter
from convdsl.kernel.nodes import (
    Binary,
    Const,
    For,
    If,
    Lane,
    Let,
    LetIndex,
    Parallel,
    Prefetch,
    Set,
    Statement,
    Store,
    Value,
    ValueType,
    Var,
)
from convdsl.kernel.target import Target
from convdsl.kernel.verify import KernelError
from convdsl.tensor import DType, bounds


class KernelPrinter(ValuePrinter):
    """Prints one kernel as an internal function; collects the intrinsics it declares."""

    def print(self) -> str:
        """The function's text. KernelError for what a CPU has not."""
        parameters = [
            f"ptr noalias nocapture {'' if b.written else 'readonly '}{self.pointers[b.name]}"
            for b in self.kernel.buffers
        ]
        for registers in self.kernel.registers:
            for slot in range(registers.count):
                name = self.register(registers, slot)
                self.put(f"{name} = alloca {type_of(registers.type)}")
        self.body(self.kernel.body)
        head = f"define internal void @{self.kernel.name}"
        head += f"({', '.join([*parameters, 'i64 %share', 'i64 %shares'])}) #0 {{"
        return "\n".join([head, "entry:", *self.text(), "  ret void", "}"])

    def body(self, body: Sequence[Statement]) -> None:
        """Print the statements of a body."""
        for statement in body:
            match statement:
                case Let():
                    self.lets[statement.var.name] = self.value(statement.value)
                    self.note_bounds(statement)
                case LetIndex():
                    self.let_index(statement)
                case Set():
                    where = self.register(statement.registers, statement.slot)
                    type = type_of(statement.registers.type)
                    self.put(f"store {type} {self.value(statement.value)}, ptr {where}")
                case Store():
                    self.store(statement)
                case Prefetch():
                    self.prefetch(statement)
                case For():
                    self.loop(statement)
                case Parallel():
                    self.parallel(statement)
                case If():
                    self.branch(statement)
                case _:  # threads of a block, and where they meet
                    raise KernelError(f"{self.kernel.name}: a grid, which a CPU has not")

    def note_bounds(self, let: Let) -> None:
        """Remember between which numbers a vector of indices is held, if it is."""
        match let.value:
            case Binary("min", Binary("max", _, Const(low)), Const(high)) if low <= high:
                self.bounded[let.var.name] = (low, high)
            case _:
                pass

    def let_index(self, let: LetIndex) -> None:
        """An index from data, whatever it is within its range."""
        type, value = ValueType(DType.I64), self.value(let.value)
        low, high = self.bounded.get(_vector_of_lane(let.value), (-math.inf, math.inf))
        if let.var.lowest <= low and high <= let.var.highest:
            self.know(let.var.name, value)
            return
        value = self.intrinsic("smax", type, (value, str(let.var.lowest)))
        self.know(let.var.name, self.intrinsic("smin", type, (value, str(let.var.highest))))

    def loop(self, loop: For) -> None:
        """Print a serial loop."""
        low, _ = bounds(loop.stop - loop.start)
        start, stop = self.index(loop.start), self.index(loop.stop)
        with self.counting(start, stop, runs=low is not None and low > 0) as counter:
            self.know(loop.var.name, counter)
            self.body(loop.body)

    def know(self, name: str, value: str) -> None:
        """The counter has this name in the level that is open."""
        self.indices[name], self.depths[name] = value, len(self.levels) - 1

    @contextmanager
    def counting(self, start: str, stop: str, *, runs: bool) -> Generator[str]:
        """A loop tested at its end; before it, unless it surely `runs`, a test whether to enter."""
        self.count += 1
        mark = self.count
        self.open_level()
        if not runs:
            go = self.result(f"icmp slt i64 {start}, {stop}")
            self.put(f"br i1 {go}, label %enter{mark}, label %exit{mark}")
            self.label(f"enter{mark}")
        entered, counter = self.block, f"%i{mark}"
        self.put(f"br label %body{mark}")
        self.label(f"body{mark}")
        joined: list[str] = []
        self.lines.append(joined)
        yield counter
        following = self.result(f"add nsw i64 {counter}, 1")
        again = self.result(f"icmp slt i64 {following}, {stop}")
        origins = f"[ {start}, %{entered} ], [ {following}, %{self.block} ]"
        joined.append(f"  {counter} = phi i64 {origins}")
        self.put(f"br i1 {again}, label %body{mark}, label %exit{mark}, !llvm.loop !0")
        self.close_level()
        self.label(f"exit{mark}")

    def parallel(self, loop: Parallel) -> None:
        """Print the iterations of one share: number `%share` of `%shares` equal parts."""
        total = math.prod(loop.extents)
        first = self.result(f"mul nuw i64 %share, {total}")
        past = self.result(f"mul nuw i64 {self.result('add nuw i64 %share, 1')}, {total}")
        start = self.result(f"udiv i64 {first}, %shares")
        stop = self.result(f"udiv i64 {past}, %shares")
        with self.counting(start, stop, runs=False) as flat:
            varying = [
                (var, extent)
                for var, extent in zip(loop.vars, loop.extents, strict=True)
                if extent > 1
            ]
            rest = flat
            for var, extent in reversed(varying[1:]):
                self.know(var.name, self.result(f"urem i64 {rest}, {extent}"))
                rest = self.result(f"udiv i64 {rest}, {extent}")
            for var, _ in varying[:1]:
                self.know(var.name, rest)
            self.body(loop.body)

    def branch(self, branch: If) -> None:
        """Print both arms and where they meet."""
        self.count += 1
        mark = self.count
        test = self.value(branch.test)
        self.open_level()  # what both arms send outwards stands before the branch
        self.put(f"br i1 {test}, label %then{mark}, label %else{mark}")
        for label, body in (("then", branch.then), ("else", branch.otherwise)):
            self.levels[-1] = Level()
            self.label(f"{label}{mark}")
            self.body(body)
            self.put(f"br label %end{mark}")
        self.close_level()
        self.label(f"end{mark}")

    def store(self, store: Store) -> None:
        """Print a store; bools lie in memory as bytes."""
        type, value = store.value.type, self.value(store.value)
        where, memory = self.address(store.buffer, store.index), memory_type(type)
        if memory != type:
            value = self.result(f"zext {type_of(type)} {value} to {type_of(memory)}")
        if store.valid is not None and store.valid < type.lanes:
            self.store_first(memory, value, where, store.valid)
            return
        if any(self.loaded.get(one) == where for one in self.picked.get(value, ())):
            # LLVM 22 would store under a mask what is chosen instead of what lies there: 18 cycles
            # with AVX2 (Zen 3), where a whole vector takes one. It does not see through a freeze.
            value = self.result(f"freeze {type_of(memory)} {value}")
        self.put(f"store {type_of(memory)} {value}, ptr {where}, align {memory.dtype.bytes}")

    def store_first(self, type: ValueType, value: str, where: str, count: int) -> None:
        """Store the first lanes. Floats under a mask where processors have registers for masks:
        AVX2's masked stores take a dozen cycles (AMD, Zen 3), a store for each power of two one. Of
        integers the lanes that are kept, because LLVM 22 makes a cast and a masked store one
        instruction for AVX-512, and forgets the mask (`vpmovqd` of i64 to i32)."""
        masks = self.target.architecture == "x86_64" and self.target.vector_bytes == 64
        if masks and type.dtype.is_float and type.dtype.computes:
            self.put(self.masked_store(type, value, where, count))
            return
        kept = ", ".join(f"i32 {lane}" for lane in range(count))
        whole, part = type_of(type), ValueType(type.dtype, count)
        lanes = f"{whole} {value}, {whole} poison, <{count} x i32> <{kept}>"
        value = self.result(f"shufflevector {lanes}")
        if count == 1:
            scalar = type_of(part)
            value = self.result(f"extractelement <1 x {scalar}> {value}, i64 0")
        self.put(f"store {type_of(part)} {value}, ptr {where}, align {type.dtype.bytes}")

    def prefetch(self, prefetch: Prefetch) -> None:
        """Read; all locality for the first-level cache, moderate for the second; data."""
        where = self.address(prefetch.buffer, prefetch.index)
        self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        locality = 4 - prefetch.level
        self.put(f"call void @llvm.prefetch.p0(ptr {where}, i32 0, i32 {locality}, i32 1)")


def attributes_of(target: Target) -> str:
    """The attribute group that all functions share. Tables of jumps are refused: their entries are
    counted from where the table begins, so that references lead beyond the code, which the loader
    takes from nobody (`runtime.cpu.elf`)."""
    width = target.vector_bytes * 8
    return (
        f'attributes #0 = {{ nounwind "no-jump-tables"="true" "target-cpu"="{target.cpu}" '
        f'"target-features"="{target.features}" '
        f'"prefer-vector-width"="{width}" "min-legal-vector-width"="{width}" }}'
    )


def _vector_of_lane(value: Value) -> str:
    """The name of the vector that a value is a lane of; empty of any other value."""
    return value.x.name if isinstance(value, Lane) and isinstance(value.x, Var) else ""

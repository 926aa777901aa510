"""Loop IR -> LLVM IR, as text, printed the plainest way.

Every register is an alloca, every address is computed from loop counters (what a block has
computed already is used again); LLVM's SROA and strength reduction do the rest
(docs/performance.md has the measurements). Serial
loops carry `llvm.loop.unroll.disable`: schedules unroll what is to be unrolled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from convdsl.backends.llvm_text import SCALARS, type_of
from convdsl.backends.llvm_values import ValuePrinter
from convdsl.kernel.nodes import (
    For,
    If,
    Let,
    Parallel,
    Prefetch,
    Set,
    Statement,
    Store,
    ValueType,
)
from convdsl.kernel.target import Target
from convdsl.tensor import DType


class KernelPrinter(ValuePrinter):
    """Prints one kernel as an internal function; collects the intrinsics it declares."""

    def print(self) -> str:
        parameters = [
            f"ptr noalias nocapture {'' if b.written else 'readonly '}{self.pointers[b.name]}"
            for b in self.kernel.buffers
        ]
        for registers in self.kernel.registers:
            for slot in range(registers.count):
                self.alloca(self.register(registers, slot), type_of(registers.type))
        self.body(self.kernel.body)
        head = f"define internal void @{self.kernel.name}"
        head += f"({', '.join([*parameters, 'i64 %share', 'i64 %shares'])}) #0 {{"
        return "\n".join([head, "entry:", *self.allocas, *self.lines, "  ret void", "}"])

    def body(self, body: Sequence[Statement]) -> None:
        for statement in body:
            match statement:
                case Let():
                    self.lets[statement.var.name] = self.value(statement.value)
                case Set():
                    where = self.register(statement.registers, statement.slot)
                    type = type_of(statement.registers.type)
                    self.put(f"store {type} {self.value(statement.value)}, ptr {where}")
                case Store():
                    self.store(statement)
                case Prefetch():
                    self.prefetch(statement)
                case For():
                    stop = self.index(statement.stop)
                    self.loop(statement.var.name, self.index(statement.start), stop, statement.body)
                case Parallel():
                    self.parallel(statement)
                case If():
                    self.branch(statement)

    def loop(self, name: str, start: str, stop: str, body: Sequence[Statement]) -> None:
        counter, index = self.open_loop(start, stop)
        self.indices[name] = index
        self.body(body)
        self.close_loop(counter, index)

    def open_loop(self, start: str, stop: str) -> tuple[str, str]:
        self.count += 1
        mark = self.count
        counter = f"%counter{mark}"
        self.alloca(counter, "i64")
        self.put(f"store i64 {start}, ptr {counter}")
        self.put(f"br label %head{mark}")
        self.label(f"head{mark}")
        index = self.result(f"load i64, ptr {counter}")
        go = self.result(f"icmp slt i64 {index}, {stop}")
        self.put(f"br i1 {go}, label %body{mark}, label %exit{mark}")
        self.label(f"body{mark}")
        self.computed.append({})
        return counter, index

    def close_loop(self, counter: str, index: str) -> None:
        self.computed.pop()
        mark = counter.removeprefix("%counter")
        self.put(f"store i64 {self.result(f'add nsw i64 {index}, 1')}, ptr {counter}")
        self.put(f"br label %head{mark}, !llvm.loop !0")
        self.label(f"exit{mark}")

    def parallel(self, loop: Parallel) -> None:
        total = math.prod(loop.extents)
        first = self.result(f"mul nuw i64 %share, {total}")
        past = self.result(f"mul nuw i64 {self.result('add nuw i64 %share, 1')}, {total}")
        start = self.result(f"udiv i64 {first}, %shares")
        stop = self.result(f"udiv i64 {past}, %shares")
        counter, flat = self.open_loop(start, stop)
        rest = flat
        for var, extent in reversed(list(zip(loop.vars, loop.extents, strict=True))[1:]):
            self.indices[var.name] = self.result(f"urem i64 {rest}, {extent}")
            rest = self.result(f"udiv i64 {rest}, {extent}")
        if loop.vars:
            self.indices[loop.vars[0].name] = rest
        self.body(loop.body)
        self.close_loop(counter, flat)

    def branch(self, branch: If) -> None:
        self.count += 1
        mark = self.count
        test = self.value(branch.test)
        self.put(f"br i1 {test}, label %then{mark}, label %else{mark}")
        for label, body in (("then", branch.then), ("else", branch.otherwise)):
            self.label(f"{label}{mark}")
            self.computed.append({})
            self.body(body)
            self.computed.pop()
            self.put(f"br label %end{mark}")
        self.label(f"end{mark}")

    def store(self, store: Store) -> None:
        type, value = store.value.type, self.value(store.value)
        if store.valid is not None and store.valid < type.lanes:
            kept = ", ".join(f"i32 {lane}" for lane in range(store.valid))
            whole, type = type_of(type), ValueType(type.dtype, store.valid)
            value = self.result(
                f"shufflevector {whole} {value}, {whole} poison, <{store.valid} x i32> <{kept}>"
            )
            if type.lanes == 1:
                value = self.result(f"extractelement <1 x {SCALARS[type.dtype]}> {value}, i64 0")
        where = self.address(store.buffer, self.index(store.index))
        if type.dtype is DType.BOOL:
            bytes_type = "i8" if type.lanes == 1 else f"<{type.lanes} x i8>"
            value = self.result(f"zext {type_of(type)} {value} to {bytes_type}")
            self.put(f"store {bytes_type} {value}, ptr {where}, align 1")
            return
        self.put(f"store {type_of(type)} {value}, ptr {where}, align {type.dtype.bytes}")

    def prefetch(self, prefetch: Prefetch) -> None:
        """Read, moderate locality (second-level cache), data."""
        where = self.address(prefetch.buffer, self.index(prefetch.index), inbounds=False)
        self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.put(f"call void @llvm.prefetch.p0(ptr {where}, i32 0, i32 2, i32 1)")


def attributes_of(target: Target) -> str:
    """The attribute group that all functions share."""
    width = target.vector_bytes * 8
    return (
        f'attributes #0 = {{ nounwind "target-cpu"="{target.cpu}" '
        f'"target-features"="{target.features}" '
        f'"prefer-vector-width"="{width}" "min-legal-vector-width"="{width}" }}'
    )

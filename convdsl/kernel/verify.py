"""Checks a kernel before anything is printed from it: malformed LLVM IR can end the process."""

from __future__ import annotations

from convdsl.kernel.nodes import (
    Binary,
    Buffer,
    Compare,
    Fma,
    For,
    Gather,
    Get,
    IndexAsValue,
    IndexTest,
    Kernel,
    Let,
    Load,
    Parallel,
    Prefetch,
    Registers,
    Select,
    Set,
    Splat,
    Statement,
    Store,
    Unary,
    Value,
    Var,
    statement_bodies,
    statement_values,
    value_children,
)
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, DType, bounds, symbols_of


class KernelError(AssertionError):
    """A malformed kernel: a bug in a schedule, never a user's mistake."""


def verify_kernel(kernel: Kernel) -> None:
    """Types agree, names are in scope, registers are written before read, no access is provably
    out of bounds, `Parallel` stands only at the top. Raises KernelError."""
    _Verifier(kernel).body(kernel.body, frozenset(), top=True)


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.written: set[tuple[str, int]] = set()
        self.defined: set[str] = set()

    def fail(self, message: str) -> None:
        raise KernelError(f"{self.kernel.name}: {message}")

    def body(
        self, body: tuple[Statement, ...], scope: frozenset[str], *, top: bool = False
    ) -> None:
        for statement in body:
            if isinstance(statement, Parallel) and not top:
                self.fail("parallel loop inside another statement")
            for value in statement_values(statement):
                self.value(value, scope)
            self.statement(statement, scope)
            inner = scope
            if isinstance(statement, For):
                self.index(statement.start, scope)
                self.index(statement.stop, scope)
                inner = scope | {statement.var.name}
            elif isinstance(statement, Parallel):
                inner = scope | {var.name for var in statement.vars}
            for nested in statement_bodies(statement):
                self.body(nested, inner)

    def statement(self, statement: Statement, scope: frozenset[str]) -> None:
        match statement:
            case Let():
                if statement.var.name in self.defined:
                    self.fail(f"{statement.var.name} is defined twice")
                if statement.var.type != statement.value.type:
                    self.fail(f"{statement.var.name}: {statement.var.type} != its value's type")
                self.defined.add(statement.var.name)
            case Set():
                self.register(statement.registers, statement.slot)
                if statement.registers.type != statement.value.type:
                    self.fail(f"{statement.registers.name}: register of another type")
                self.written.add((statement.registers.name, statement.slot))
            case Store():
                if statement.buffer.dtype is not statement.value.type.dtype:
                    self.fail(f"store of {statement.value.type} to {statement.buffer}")
                if not statement.buffer.written:
                    self.fail(f"store to the input {statement.buffer.name}")
                lanes = statement.value.type.lanes
                count = lanes if statement.valid is None else statement.valid
                self.access(statement.buffer, statement.index, count, scope)
            case Prefetch():
                if statement.buffer not in self.kernel.buffers:
                    self.fail(f"{statement.buffer.name} is not a parameter")
                self.index(statement.index, scope)
            case _:
                pass

    def value(self, value: Value, scope: frozenset[str]) -> None:
        for child in value_children(value):
            self.value(child, scope)
        match value:
            case Var():
                if value.name not in self.defined:
                    self.fail(f"{value.name} is not defined")
            case Load():
                if value.buffer.dtype is not value.type.dtype:
                    self.fail(f"load of {value.type} from {value.buffer}")
                lanes = 0 if value.guards else value.type.lanes
                self.access(value.buffer, value.index, lanes, scope)
            case Get():
                self.register(value.registers, value.slot)
                if (value.registers.name, value.slot) not in self.written:
                    self.fail(f"{value.registers.name}[{value.slot}] is read before it is written")
            case Unary():
                self.primitive(value.op, value.x.type.dtype)
            case Binary() | Compare():
                self.primitive(value.op, value.a.type.dtype)
                if value.a.type != value.b.type:
                    self.fail(f"{value.op} of {value.a.type} and {value.b.type}")
            case Fma():
                if not value.a.type == value.b.type == value.c.type:
                    self.fail("fma of different types")
            case Select():
                lanes = value.condition.type.lanes
                if value.condition.type.dtype is not DType.BOOL or lanes not in (
                    1,
                    value.yes.type.lanes,
                ):
                    self.fail("select needs a bool, one or one a lane")
                if value.yes.type != value.no.type:
                    self.fail(f"select between {value.yes.type} and {value.no.type}")
            case Splat():
                if value.x.type.lanes != 1 or value.x.type.dtype is not value.type.dtype:
                    self.fail("splat needs a scalar of the same element type")
            case Gather():
                if len(value.lanes) != value.type.lanes:
                    self.fail("gather with a wrong number of lanes")
            case IndexAsValue():
                self.index(value.index, scope)
            case IndexTest():
                self.index(value.a, scope)
                self.index(value.b, scope)
            case _:
                pass

    def primitive(self, op: str, dtype: DType) -> None:
        if op not in FUNCTIONS or dtype not in FUNCTIONS[op].printed:
            self.fail(f"{op} of {dtype} is no operation of the loop IR")

    def index(self, index: Dim, scope: frozenset[str]) -> None:
        for symbol in symbols_of(index):
            if symbol.name not in scope:
                self.fail(f"index {index} uses {symbol.name}, which is not in scope")

    def access(self, buffer: Buffer, index: Dim, lanes: int, scope: frozenset[str]) -> None:
        if buffer not in self.kernel.buffers:
            self.fail(f"{buffer.name} is not a parameter")
        self.index(index, scope)
        low, high = bounds(index)
        if lanes and (
            (high is not None and high < 0) or (low is not None and low + lanes > buffer.size)
        ):
            self.fail(f"{buffer.name}[{index}] is out of bounds ({buffer.size} elements)")

    def register(self, registers: Registers, slot: int) -> None:
        if registers not in self.kernel.registers or not 0 <= slot < registers.count:
            self.fail(f"no register {registers.name}[{slot}]")

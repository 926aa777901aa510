"""Every kind of malformed kernel is refused before anything is printed from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import (
    Binary,
    Buffer,
    Compare,
    Const,
    Fma,
    For,
    Gather,
    Get,
    IndexAsValue,
    IndexTest,
    Kernel,
    Let,
    Load,
    LoopVar,
    Parallel,
    Registers,
    Select,
    Set,
    Splat,
    Statement,
    Store,
    Value,
    ValueType,
    Var,
)
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType, symbol

F32, F64, I64, BOOL = (ValueType(t) for t in (DType.F32, DType.F64, DType.I64, DType.BOOL))
F32X4 = ValueType(DType.F32, 4)
X, Y = Buffer("x", DType.F32, 8), Buffer("y", DType.F32, 8, written=True)
ACC = Registers("acc", 2, F32)
ONE, ONES, WIDE = Const(1.0, F32), Const(1.0, F32X4), Const(1.0, F64)
LOOP = LoopVar("i", 0, 7)


def kernel(*body: Statement) -> Kernel:
    return Kernel("k", (X, Y), (ACC,), body)


def value(v: Value) -> Kernel:
    """A kernel that computes v and does nothing with it."""
    return kernel(Let(Var("v", v.type), v))


MALFORMED: dict[str, tuple[Kernel, str]] = {
    "nested parallel": (
        kernel(For(LOOP, 0, 8, (Parallel((), (), ()),))),
        "parallel loop inside another statement",
    ),
    "name defined twice": (
        kernel(Let(Var("v", F32), ONE), Let(Var("v", F32), ONE)),
        "v is defined twice",
    ),
    "name of another type": (kernel(Let(Var("v", F64), ONE)), "v: f64 != its value's type"),
    "name not defined": (value(Var("w", F32)), "w is not defined"),
    "register of another type": (kernel(Set(ACC, 0, WIDE)), "register of another type"),
    "no such slot": (kernel(Set(ACC, 2, ONE)), r"no register acc\[2\]"),
    "no such registers": (kernel(Set(replace(ACC, name="b"), 0, ONE)), r"no register b\[0\]"),
    "read before written": (
        kernel(Set(ACC, 0, ONE), Let(Var("v", F32), Get(ACC, 1))),
        r"acc\[1\] is read before it is written",
    ),
    "store of another type": (kernel(Store(Y, 0, WIDE)), "store of f64"),
    "store to an input": (kernel(Store(X, 0, ONE)), "store to the input x"),
    "store past the end": (kernel(Store(Y, 5, ONES)), r"y\[5\] is out of bounds \(8 elements\)"),
    "partial store past the end": (kernel(Store(Y, 6, ONES, valid=3)), "out of bounds"),
    "load before the start": (value(Load(X, -1, F32)), r"x\[-1\] is out of bounds"),
    "load past the end": (value(Load(X, 5, F32X4)), r"x\[5\] is out of bounds"),
    "load of another type": (value(Load(X, 0, F64)), "load of f64"),
    "foreign buffer": (value(Load(Buffer("z", DType.F32, 8), 0, F32)), "z is not a parameter"),
    "index out of scope": (
        kernel(For(LOOP, 0, 8, ()), Store(Y, LOOP.i, ONE)),
        "uses i, which is not in scope",
    ),
    "loop bound out of scope": (kernel(For(LOOP, 0, symbol("n"), ())), "uses n"),
    "loop start out of scope": (kernel(For(LOOP, symbol("n"), 8, ())), "uses n"),
    "index value out of scope": (value(IndexAsValue(symbol("n"), 0, I64)), "uses n"),
    "index test out of scope": (value(IndexTest("lt", 0, symbol("n"))), "uses n"),
    "guard out of scope": (
        value(Load(X, 0, F32, (IndexTest("lt", symbol("n"), 4),))),
        "uses n",
    ),
    "operands of two types": (value(Binary("add", ONE, WIDE)), "add of f32 and f64"),
    "operands of two widths": (value(Binary("add", ONE, ONES)), "add of f32 and f32x4"),
    "compared types": (value(Compare("lt", ONE, WIDE)), "lt of f32 and f64"),
    "fma of two types": (value(Fma(ONE, ONE, WIDE)), "fma of different types"),
    "select by a number": (value(Select(ONE, ONE, ONE)), "select needs a bool"),
    "select by other lanes": (
        value(Select(Const(True, ValueType(DType.BOOL, 2)), ONES, ONES)),
        "select needs a bool",
    ),
    "select between types": (value(Select(Const(True, BOOL), ONE, WIDE)), "select between"),
    "splat of a vector": (value(Splat(ONES, F32X4)), "splat needs a scalar"),
    "splat to another type": (value(Splat(WIDE, F32X4)), "splat needs a scalar"),
    "gather of too few": (value(Gather((ONE,) * 3, F32X4)), "wrong number of lanes"),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_refused(what: str) -> None:
    bad, message = MALFORMED[what]
    with pytest.raises(KernelError, match=f"^k: .*{message}"):
        verify_kernel(bad)


SOUND: dict[str, Callable[[], Kernel]] = {
    "last vector": lambda: kernel(Store(Y, 4, ONES)),
    "partial store at the end": lambda: kernel(Store(Y, 5, ONES, valid=3)),
    "guarded load outside": lambda: value(Load(X, 9, F32, (IndexTest("lt", 9, 8),))),
    "loop variable in its body": lambda: kernel(For(LOOP, 0, 8, (Store(Y, LOOP.i, ONE),))),
    "one bool for all lanes": lambda: value(Select(Const(True, BOOL), ONES, ONES)),
}


@pytest.mark.parametrize("what", SOUND)
def test_accepted(what: str) -> None:
    verify_kernel(SOUND[what]())


def test_what_the_builder_makes_is_sound() -> None:
    b = Builder("sum", DType.F32, 4)
    x = b.buffer("x", DType.F32, 32)
    y = b.buffer("y", DType.F32, 4, written=True)
    acc = b.registers(1)
    b.zero(acc)
    with b.serial("i", 8) as i:
        b.set(acc, 0, Binary("add", Get(acc, 0), b.load(x, i * 4)))
    b.store(y, 0, Get(acc, 0))
    verify_kernel(b.kernel())


def test_a_loop_needs_a_bounded_range() -> None:
    b = Builder("k", DType.F32, 4)
    with pytest.raises(ValueError, match="loop i: unbounded range"), b.serial("i", symbol("n")):
        pass

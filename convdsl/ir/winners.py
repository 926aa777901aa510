"""Maxima of windows that remember which position won, so that their gradients need not ask again.

    y[p]   = max over r of x[at(p, r)]
    tap[p] = the first r where x[at(p, r)] is y[p], or is no number: its number among the taps
    dx     = the gradient of  sum over r of (x[at(p, r)] where tap[p] is r, else 0)

The last is an operator of its own, whose gradient is derived: each position of x asks the few
windows that hold it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from convdsl.ir.derivative import derive_call
from convdsl.ir.keeping import Recording
from convdsl.ir.opdef import Call, Derived, OpDef, Operand
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Compare,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    positions_of,
)
from convdsl.tensor import Dim, DType, TensorType

TAP = "tap"


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of x: the axes of the output, those of a window, what is read for both, and what has
    to hold for a place to be in the window and in x."""

    output: tuple[Axis, ...]
    taps: tuple[Axis, ...]
    read: Read
    inside: tuple[IndexCompare, ...]

    @property
    def place(self) -> IndexValue:
        """The number of a tap."""
        place: Dim = 0
        for axis in self.taps:
            place = place * axis.extent + axis.i
        return IndexValue(place, DType.U32)

    @property
    def type(self) -> TensorType:
        """Of the numbers of taps: a byte where they are few, one more counts as none."""
        count = positions_of(self.taps)
        few = isinstance(count, int) and count < 256
        return TensorType(
            DType.U8 if few else DType.U32, tuple(axis.extent for axis in self.output)
        )

    def guarded(self, value: Expr, nothing: Expr) -> Expr:
        """The value of a place that is inside."""
        for condition in self.inside:
            value = Select(condition, value, nothing)
        return value


def winner(windows: Windows, largest: TensorVar) -> Stage:
    """The first tap of each window whose value is the largest, or NaN."""
    value = windows.read
    at = tuple(axis.i for axis in windows.output)
    is_it = Binary("or", Compare("eq", value, Read(largest, at)), Unary("isnan", value))
    behind = IndexValue(positions_of(windows.taps), DType.U32)
    candidate = windows.guarded(Select(is_it, windows.place, behind), behind)
    first: Expr = Reduce("min", windows.taps, candidate)
    stored = windows.type
    body = first if stored.dtype is DType.U32 else Cast(first, stored.dtype)
    return Stage(TensorVar(TAP, stored), windows.output, body)


@dataclass(frozen=True)
class Winners:
    """The gradient of a maximum of windows, by what won. `windows` says what a call's are."""

    windows: Callable[[Call], Windows]

    def recording(self, call: Call) -> TensorExpr:
        """The maximum, and the winner besides."""
        expr = call.op.kernel(call)
        stage = winner(self.windows(call), expr.stages[-1].target)
        return replace(expr, stages=(*expr.stages, stage))

    def picked(self, call: Call) -> TensorExpr:
        """y[p] = sum over r of (x[at(p, r)] where tap[p] is r, else 0)"""
        windows, tap = self.windows(call), call.var(TAP)
        number: Expr = Read(tap, tuple(axis.i for axis in windows.output))
        number = number if tap.type.dtype is DType.U32 else Cast(number, DType.U32)
        nothing = Literal(0.0, windows.read.dtype)
        value = Select(Compare("eq", number, windows.place), windows.read, nothing)
        body = Reduce("sum", windows.taps, windows.guarded(value, nothing))
        y = Stage(TensorVar("y", call.outputs[0]), windows.output, body)
        return TensorExpr((call.var("x"), tap), (y,), ("y",))

    def gradient(self, p: Pullback) -> Gradients:
        """By the forward node's winners."""
        op = _picking(self, p.node.op)
        (tap,) = p.kept(Recording((TAP,), self.recording))
        call = op.call({"x": p.operand("x").type, TAP: tap.type}, p.node.attributes)
        return {"x": derive_call(p.build, call, {TAP: tap}, {"dy": p.dy}, "x")}


@cache
def _picking(winners: Winners, op: OpDef) -> OpDef:
    """The operator that takes the elements of x that won, a linear one."""

    def infer(call: Call) -> tuple[TensorType, ...]:
        return op.infer(replace(call, op=op))[:1]

    return replace(
        op,
        name=f"{op.name.partition('.')[0]}.picked",
        aliases=(),
        operands=(Operand("x"), Operand(TAP)),
        outputs=("y",),
        infer=infer,
        kernel=winners.picked,
        gradient=Derived(search=True),
    )

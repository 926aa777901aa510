"""How a change flows from the value of a scalar expression back into its reads.

With g the gradient of the value, every read gets g times the derivatives on the way to it, which
stand with the scalar functions. Choices stay choices: where an arm is not taken, zero flows, and
not a product with zero, which would be NaN where the other factor is infinite.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Compare,
    Expr,
    IndexValue,
    Literal,
    Pick,
    Read,
    Select,
    Unary,
    children,
    maximum,
    minimum,
)
from convdsl.kernel.formula import Chosen, Formula, Number, read
from convdsl.kernel.scalar import FUNCTIONS, NotDifferentiable
from convdsl.tensor import DType, symbols_of
from convdsl.tensor.records import record


@record
class Flow:
    """What flows into a read; `picked`: axes that run besides those in scope, of positions that are
    data."""

    read: Read
    value: Expr
    picked: tuple[Axis, ...] = ()


Onward: TypeAlias = "Callable[[Expr], list[Flow]]"


@record
class Flows:
    """Flows into reads of the `active` tensors. `flat_roots`: the derivative of a root at zero
    counts as zero, as in norms."""

    active: frozenset[str]
    flat_roots: bool

    def into(self, e: Expr, g: Expr) -> list[Flow]:
        """What flows into reads below `e`, if `g` flows into `e`. Raises NotImplementedError where
        a function on the way has no derivative."""
        if not self.reaches(e):
            return []
        match e:
            case Read():
                return [Flow(e, g)]
            case Cast():
                return self.into(e.x, g if e.x.dtype is g.dtype else Cast(g, e.x.dtype))
            case Select():
                yes, no = self.into(e.yes, g), self.into(e.no, g)
                return _chosen(e.condition, yes, no)
            case Unary() | Binary():
                return self._through(e, g)
            case Pick():
                return [_placed(e, flow) for flow in self.into(e.body, g)]
            case _:
                raise NotImplementedError(f"no gradient flows through {type(e).__name__}")

    def reaches(self, e: Expr) -> bool:
        """Whether a change of the active tensors can change a value smoothly."""
        if not e.dtype.is_float:
            return False
        if isinstance(e, Select):
            return self.reaches(e.yes) or self.reaches(e.no)
        if isinstance(e, Read):
            return e.tensor.name in self.active
        return any(self.reaches(child) for child in children(e))

    def _through(self, e: Unary | Binary, g: Expr) -> list[Flow]:
        parts = children(e)
        found: list[Flow] = []
        for part, derivative in zip(parts, FUNCTIONS[e.op].derivatives, strict=True):
            if not self.reaches(part):
                continue
            if isinstance(derivative, NotDifferentiable):
                raise NotImplementedError(f"{e.op} has no derivative: {derivative.reason}")

            def onward(flow: Expr, part: Expr = part) -> list[Flow]:
                return self.into(part, flow)

            flowing = _times(derivative, (*parts, e), g, onward)
            if self.flat_roots and _is_root(e):
                above = Compare("gt", parts[0], Literal(0.0, e.dtype))
                flowing = _chosen(above, flowing, [])
            found += flowing
        return found


def _times(formula: Formula, given: tuple[Expr, ...], g: Expr, onward: Onward) -> list[Flow]:
    """Flows of g times a derivative."""
    if isinstance(formula, Number) and formula.value == 0:
        return []
    if isinstance(formula, Chosen):
        test = read(formula.test, given, Expressions())
        if isinstance(test, Literal):
            return _times(formula.yes if test.value else formula.no, given, g, onward)
        yes = _times(formula.yes, given, g, onward)
        return _chosen(test, yes, _times(formula.no, given, g, onward))
    return onward(Expressions().apply("mul", (g, read(formula, given, Expressions()))))


def _chosen(test: Expr, yes: list[Flow], no: list[Flow]) -> list[Flow]:
    """Flows where a test holds, and flows where it does not."""

    def zero(flow: Flow) -> Expr:
        return Literal(0.0, flow.value.dtype)

    return [
        *(replace(flow, value=Select(test, flow.value, zero(flow))) for flow in yes),
        *(replace(flow, value=Select(test, zero(flow), flow.value)) for flow in no),
    ]


def _placed(pick: Pick, flow: Flow) -> Flow:
    """A flow into a read below a pick: only to the position that the data says."""
    if any(s.name == pick.axis.name for d in flow.read.index for s in symbols_of(d)):
        here = Compare("eq", _position(pick), IndexValue(pick.axis.i, DType.I64))
        value = Select(here, flow.value, Literal(0.0, flow.value.dtype))
        return Flow(flow.read, value, (*flow.picked, pick.axis))
    outside = None if pick.outside is None else 0.0
    return replace(flow, value=replace(pick, body=flow.value, outside=outside))


def _position(pick: Pick) -> Expr:
    """The position that is read; where there is none and nothing is, one beyond the axis."""
    extent = IndexValue(pick.axis.extent, DType.I64)
    place = pick.index
    if pick.from_end:
        place = Select(Compare("lt", place, Literal(0, DType.I64)), place + extent, place)
    if pick.outside is None:
        place = maximum(minimum(place, extent - 1), 0)
    return place


def _is_root(e: Unary | Binary) -> bool:
    match e:
        case Unary("sqrt"):
            return True
        case Binary("pow", _, Literal(value)):
            return 0 < value < 1
        case _:
            return False


class Expressions:
    """The world of tensor expressions, for formulas: what needs no arithmetic gets none."""

    def number(self, value: float, like: Expr) -> Expr:
        return Literal(value, like.dtype)

    def apply(self, function: str, parts: tuple[Expr, ...]) -> Expr:
        values = [part.value for part in parts if isinstance(part, Literal)]
        if len(values) == len(parts) and function in _FOLDED:
            return _folded(function, values, parts[0].dtype)
        if len(parts) == 1:
            return Unary(function, parts[0])
        a, b = parts
        simpler = _simpler(function, a, b)
        if simpler is not None:
            return simpler
        if FUNCTIONS[function].is_comparison:
            return Compare(function, a, b)
        return Binary(function, a, b)

    def choose(self, test: Expr, yes: Expr, no: Expr) -> Expr:
        if isinstance(test, Literal):
            return yes if test.value else no
        return Select(test, yes, no)


_FOLDED = frozenset(("add", "sub", "mul", "neg", "eq", "gt", "lt"))


def _folded(function: str, values: list[float], dtype: DType) -> Expr:
    record = FUNCTIONS[function]
    found = record.meaning(*(np.asarray(value, dtype.numpy) for value in values))
    return Literal(found.item(), record.result(dtype))


def _simpler(function: str, a: Expr, b: Expr) -> Expr | None:
    """a * 1, a * -1, a * (1 / b), a * -b, a to the powers 0 and 1."""
    match function, a, b:
        case ("mul", other, Literal(1)) | ("mul", Literal(1), other):
            return other
        case ("mul", other, Literal(-1)) | ("mul", Literal(-1), other):
            return Unary("neg", other)
        case "mul", _, Binary("div", Literal(1), divisor):
            return Binary("div", a, divisor)
        case "mul", _, Unary("neg", other):
            return Unary("neg", Expressions().apply("mul", (a, other)))
        case "pow", _, Literal(1):
            return a
        case "pow", _, Literal(0):
            return Literal(1.0, a.dtype)
        case _:
            return None

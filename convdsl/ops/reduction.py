"""Reductions along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    Attribute,
    Call,
    Derived,
    Gradient,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    Rule,
    WindowRule,
    float_type,
    no_contraction,
    no_state,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import SPACE, resolve_axes, whole_along
from convdsl.kernel.expr import (
    Axis,
    Compare,
    Expr,
    IndexValue,
    Literal,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    Unary,
    axes_over,
    positions_of,
)
from convdsl.tensor import Dim, DType, TensorType

ALL = "all"


def resolve_reduction(call: Call) -> Mapping[str, Any]:
    """Axes in order, from 0 on; `space` is all from 2 on, `all` is all. Raises OpError for masks,
    axes that do not exist or come twice, and where there is none."""
    x = call.type("x")
    if x.dtype is DType.BOOL:
        raise OpError(f"{call.op.name} needs numbers, not {x.dtype}", operands=("x",))
    words = {SPACE: tuple(range(2, x.rank)), ALL: tuple(range(x.rank))}
    axes = words.get(call["axes"]) if isinstance(call["axes"], str) else None
    if axes is None:
        axes = resolve_axes(call, "axes", x.rank)
    if not axes:
        raise OpError(f"{x} has no axes to reduce", operands=("x",), attributes=("axes",))
    return {**call.attributes, "axes": axes}


def resolve_floating_reduction(call: Call) -> Mapping[str, Any]:
    """As `resolve_reduction`, of floating numbers only."""
    float_type(call)
    return resolve_reduction(call)


def infer_reduction(call: Call) -> tuple[TensorType, ...]:
    """x without the axes; with `keepdims` they stay with extent 1."""
    x, axes = call.type("x"), call["axes"]
    if call["keepdims"]:
        shape = tuple(1 if j in axes else extent for j, extent in enumerate(x.shape))
    else:
        shape = tuple(extent for j, extent in enumerate(x.shape) if j not in axes)
    return (TensorType(x.dtype, shape),)


def field_reduction(call: Call) -> WindowRule:
    """Along reduced axes all is seen; where axes go, no axis stands where it stood."""
    x = call.type("x")
    if call["keepdims"]:
        return whole_along(x.shape, call["axes"])
    return Reach.WHOLE if call.outputs[0].rank <= 2 else Reach.DERIVED


@dataclass(frozen=True)
class _Frame:
    """Axes of a reduction: the output's, the reduced ones, and the read of x over both."""

    output: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    value: Read

    def reduce(self, op: str, body: Expr) -> Reduce:
        return Reduce(op, self.reduced, body)

    @property
    def count(self) -> Expr:
        size = positions_of(self.reduced)
        dtype = self.value.dtype
        return Literal(size, dtype) if isinstance(size, int) else IndexValue(size, dtype)


def _frame(call: Call) -> _Frame:
    x = call.var("x")
    axes: tuple[int, ...] = call["axes"]
    output = axes_over(call.outputs[0].shape)
    kept = iter(axis for j, axis in enumerate(output) if not (call["keepdims"] and j in axes))
    reduced = {j: Axis(f"r{j}", x.type.shape[j]) for j in axes}
    index: list[Dim] = [reduced[j].i if j in reduced else next(kept).i for j in range(x.type.rank)]
    return _Frame(output, tuple(reduced.values()), Read(x, tuple(index)))


def reduction(
    name: str,
    rule: Callable[[_Frame], Expr],
    doc: str,
    aliases: tuple[str, ...] = (),
    floating: bool = True,
    gradient: Gradient = DERIVED,
) -> OpDef:
    """The record of a reduction that one expression says."""

    def kernel(call: Call) -> TensorExpr:
        frame = _frame(call)
        y = Stage(TensorVar("y", call.outputs[0]), frame.output, rule(frame))
        return TensorExpr((call.var("x"),), (y,), ("y",))

    return _record(name, kernel, doc, aliases, floating, gradient)


def _record(
    name: str,
    kernel: Callable[[Call], TensorExpr],
    doc: str,
    aliases: tuple[str, ...] = (),
    floating: bool = True,
    gradient: Gradient = DERIVED,
) -> OpDef:
    return OpDef(
        name=name,
        aliases=aliases,
        doc=doc,
        operands=(Operand("x"),),
        attributes=(
            Attribute(
                "axes",
                Kind.INTS,
                ALL,
                "the axes to reduce, or space; all of them, as PyTorch and NumPy",
                choices=(SPACE, ALL),
            ),
            Attribute(
                "keepdims", Kind.BOOL, False, "leave reduced axes with extent 1; no, as PyTorch"
            ),
        ),
        outputs=("y",),
        resolve=resolve_floating_reduction if floating else resolve_reduction,
        state=no_state,
        infer=infer_reduction,
        window=field_reduction,
        cost=no_contraction,
        kernel=kernel,
        gradient=gradient,
    )


def kernel_log_sum_exp(call: Call) -> TensorExpr:
    """top = max over r.. of x, or 0 where that is infinite
    y = top + log(sum over r.. of exp(x - top))"""
    frame, (out,) = _frame(call), call.outputs
    largest = Stage(TensorVar("largest", out), frame.output, frame.reduce("max", frame.value))
    at = tuple(axis.i for axis in frame.output)
    found = Read(largest.target, at)
    finite = Compare("lt", Unary("abs", found), Literal(inf, out.dtype))
    top = Stage(TensorVar("top", out), frame.output, Select(finite, found, Literal(0.0, out.dtype)))
    base = Read(top.target, at)
    total = frame.reduce("sum", Unary("exp", frame.value - base))
    y = Stage(TensorVar("y", out), frame.output, base + Unary("log", total))
    return TensorExpr((call.var("x"),), (largest, top, y), ("y",))


def gradient_log_sum_exp(p: Pullback) -> Gradients:
    """dx = dy * exp(x - y)"""
    b, x, axes = p.build, p.operand("x"), p["axes"]
    shape = tuple(1 if j in axes else extent for j, extent in enumerate(x.type.shape))
    y, dy = b.reshape(p.y, shape), b.reshape(p.dy, shape)
    return {"x": b("mul", dy, b("exp", b("sub", x, y)), name="dx")}


OPERATORS = (
    reduction(
        "reduce_sum", lambda f: f.reduce("sum", f.value), "The sum along axes.", floating=False
    ),
    reduction(
        "reduce_mean",
        lambda f: f.reduce("sum", f.value) / f.count,
        "The mean along axes.",
        aliases=("mean",),
    ),
    reduction(
        "reduce_max", lambda f: f.reduce("max", f.value), "The maximum along axes.", floating=False
    ),
    reduction(
        "reduce_min", lambda f: f.reduce("min", f.value), "The minimum along axes.", floating=False
    ),
    reduction(
        "reduce_prod",
        lambda f: f.reduce("prod", f.value),
        "The product along axes.",
        floating=False,
    ),
    reduction(
        "reduce_l1", lambda f: f.reduce("sum", Unary("abs", f.value)), "The sum of magnitudes."
    ),
    reduction(
        "reduce_l2",
        lambda f: Unary("sqrt", f.reduce("sum", f.value * f.value)),
        "The Euclidean norm along axes.",
        gradient=Derived(flat_roots=True),
    ),
    reduction(
        "reduce_sum_square",
        lambda f: f.reduce("sum", f.value * f.value),
        "The sum of squares along axes.",
    ),
    _record(
        "reduce_log_sum_exp",
        kernel_log_sum_exp,
        "log of the sum of exp(x), without overflow.",
        gradient=Rule(gradient_log_sum_exp, "from the output; the maximum cancels"),
    ),
)

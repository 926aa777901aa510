"""Tensors put together and taken apart along an axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    Rule,
    WindowRule,
    no_contraction,
    no_state,
)
from convdsl.ir.pullback import Gradients, Pullback
from convdsl.ir.shapes import disagreement, disagreements, entries, resolve_axis
from convdsl.kernel.expr import (
    Expr,
    IndexCompare,
    Read,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    axes_over,
)
from convdsl.tensor import Dim, TensorType, exact_div

MOST_PARTS = 256
"""Parts of a split, operands of a concat: counted before anything is made. Each has machine code
of its own."""


def resolve_concat(call: Call) -> Mapping[str, Any]:
    """x0, x1, .. of one dtype and one shape but for `axis`, which is counted from 0. Raises OpError
    where they differ, or where that they are equal cannot be proven."""
    names = call.variadic("x")
    first = call.type(names[0])
    if len(names) > MOST_PARTS:
        raise OpError(f"{len(names):,} operands; at most {MOST_PARTS} make sense")
    axis = resolve_axis(call)
    for name in names[1:]:
        other = call.type(name)
        what = f"cannot concat {first} and {other} along axis {axis}"
        if other.dtype is not first.dtype:
            raise OpError(f"{what}: their dtypes differ", operands=(names[0], name))
        if other.rank != first.rank:
            raise OpError(f"{what}: their ranks differ", operands=(names[0], name))
        pairs = enumerate(zip(first.shape, other.shape, strict=True))
        if any(position != axis and a != b for position, (a, b) in pairs):
            error = disagreements(what, first.shape, other.shape, (names[0], name), apart=axis)
            shapes = zip(first.shape, other.shape, strict=True)
            differ = [position for position, (a, b) in enumerate(shapes) if a != b]
            if axis != 1 and differ == [1]:
                error.help = ("they differ in channels alone: along those, axis = 1",)
            raise error
    return {**call.attributes, "axis": axis}


def infer_concat(call: Call) -> tuple[TensorType, ...]:
    """y, as long along the axis as all together."""
    types = [call.type(name) for name in call.variadic("x")]
    axis: int = call["axis"]
    total: Dim = 0
    for type in types:
        total = total + type.shape[axis]
    shape = (*types[0].shape[:axis], total, *types[0].shape[axis + 1 :])
    return (TensorType(types[0].dtype, shape),)


def field_concat(call: Call) -> WindowRule:
    """Batch and channels have no place; along space what the expression reads counts."""
    return Reach.POINTWISE if call["axis"] < 2 else Reach.DERIVED


FEW = 8
"""Operands that are told apart one after the other."""


def kernel_concat(call: Call) -> TensorExpr:
    """y[.., i, ..] = select(i < A, a[.., i, ..], select(i < A + B, b[.., i - A, ..], ...))"""
    axis: int = call["axis"]
    (out,) = call.outputs
    inputs = tuple(call.var(name) for name in call.variadic("x"))
    axes = axes_over(out.shape)
    at = [a.i for a in axes]
    ends: list[Dim] = [0]
    for x in inputs:
        ends.append(ends[-1] + x.type.shape[axis])

    def piece(number: int) -> Expr:
        index = (*at[:axis], at[axis] - ends[number], *at[axis + 1 :])
        return Read(inputs[number], index)

    def pieces(first: int, last: int) -> Expr:
        """Of the operands first..last; many are halved, so that they are no deep tree."""
        if first == last:
            return piece(first)
        middle = (first + last) // 2 if last - first >= FEW else first
        left, right = pieces(first, middle), pieces(middle + 1, last)
        return Select(IndexCompare("lt", at[axis], ends[middle + 1]), left, right)

    body = pieces(0, len(inputs) - 1)
    return TensorExpr(inputs, (Stage(TensorVar("y", out), axes, body),), ("y",))


def gradient_concat(p: Pullback) -> Gradients:
    """dy, split into the extents of the operands"""
    names = p.node.call.variadic("x")
    axis: int = p["axis"]
    parts = tuple(p.operand(name).type.shape[axis] for name in names)
    made = p.build.node("split", p.dy, parts=parts, axis=axis, name="dx")
    return dict(zip(names, made.outputs, strict=True))


CONCAT = OpDef(
    name="concat",
    aliases=(),
    doc="The operands one after the other along an axis.",
    operands=(Operand("x", variadic=True),),
    attributes=(Attribute("axis", Kind.INT, 1, "axis along which to join; channels"),),
    outputs=("y",),
    resolve=resolve_concat,
    state=no_state,
    infer=infer_concat,
    window=field_concat,
    cost=no_contraction,
    kernel=kernel_concat,
    gradient=Rule(gradient_concat, "the inverse is a split"),
)


def _of_samples(axis: int) -> tuple[str, ...]:
    """Help for parts of a batch, whose size is known when the network runs."""
    return ("axis 0 is the batch, channels are axis 1",) if axis == 0 else ()


def _unequal(extent: Dim, parts: int) -> tuple[str, ...]:
    """Help for parts that are not equal: sizes that add up."""
    if not isinstance(extent, int) or not 1 < parts <= min(extent, 8):
        return ()
    least, more = divmod(extent, parts)
    sizes = [least + 1] * more + [least] * (parts - more)
    return (f"of unequal parts say the sizes: split({sizes})",)


def resolve_split(call: Call) -> Mapping[str, Any]:
    """`parts` as extents along the axis, which add up to that of x: a number of them divides it.
    Raises OpError where they do not, or too many are asked for."""
    x, axis = call.type("x"), resolve_axis(call)
    extent, parts = x.shape[axis], call["parts"]
    count: int = parts if isinstance(parts, int) else len(parts)
    if count > MOST_PARTS:
        text = f"{count:,} parts; at most {MOST_PARTS} make sense"
        raise OpError(text, attributes=("parts",))
    if isinstance(parts, int):
        size = exact_div(extent, parts)
        if size is None:
            raise OpError(
                f"axis {axis} of {x} does not divide into {parts} parts",
                attributes=("parts",),
                operands=("x",),
                help=_unequal(extent, parts) or _of_samples(axis),
            )
        sizes = (size,) * parts
    else:
        sizes = entries(call, "parts")
        total: Dim = 0
        for size in sizes:
            total = total + size
        if total != extent:
            what = f"cannot split axis {axis} of {x} into {' + '.join(map(str, sizes))}"
            error = disagreement(what, extent, total, ("x",))
            if isinstance(extent, int) and isinstance(total, int):
                rest = [*sizes, extent - total] if total < extent else []
                error.help = (f"what is left is a part, too: {rest}",) if rest else ()
            raise error
    return {**call.attributes, "axis": axis, "parts": sizes}


def infer_split(call: Call) -> tuple[TensorType, ...]:
    """As many outputs as parts, each as long along the axis as its part."""
    x = call.type("x")
    axis: int = call["axis"]
    shapes = ((*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in call["parts"])
    return tuple(TensorType(x.dtype, shape) for shape in shapes)


def kernel_split(call: Call) -> TensorExpr:
    """y0[.., i, ..] = x[.., i, ..]; y1[.., i, ..] = x[.., i + A, ..]; ..."""
    x = call.var("x")
    axis: int = call["axis"]
    stages: list[Stage] = []
    start: Dim = 0
    for name, type in zip(call.output_names, call.outputs, strict=True):
        axes = axes_over(type.shape)
        at = [a.i for a in axes]
        at[axis] = at[axis] + start
        stages.append(Stage(TensorVar(name, type), axes, Read(x, tuple(at))))
        start = start + type.shape[axis]
    return TensorExpr((x,), tuple(stages), call.output_names)


def gradient_split(p: Pullback) -> Gradients:
    """The gradients of the parts one after the other, zeros for those that have none"""
    pairs = zip(p.dys, p.node.outputs, strict=True)
    parts = [p.zeros(y.type) if dy is None else dy for dy, y in pairs]
    return {"x": p.build("concat", *parts, axis=p["axis"], name="dx")}


SPLIT = OpDef(
    name="split",
    aliases=("chunk",),
    doc="Consecutive parts of x along an axis: the inverse of concat.",
    operands=(Operand("x"),),
    attributes=(
        Attribute("parts", Kind.INTS, 2, "how many equal parts, or the size of each", minimum=1),
        Attribute("axis", Kind.INT, 1, "axis along which to split; channels"),
    ),
    outputs=("y*",),
    resolve=resolve_split,
    state=no_state,
    infer=infer_split,
    window=field_concat,
    cost=no_contraction,
    kernel=kernel_split,
    gradient=Rule(gradient_split, "the inverse is a concat"),
)

OPERATORS = (CONCAT, SPLIT)

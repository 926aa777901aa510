"""Data movement that keeps every element: the same values under another shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from convdsl.ir.opdef import (
    REQUIRED,
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
from convdsl.ir.shapes import disagreement, resolve_axes
from convdsl.kernel.expr import Read, Stage, TensorExpr, TensorVar, axes_over
from convdsl.tensor import Dim, TensorType, bounds, exact_div, format_shape

Shape = tuple[Dim, ...]


def product(shape: Shape) -> Dim:
    """How many elements a shape has."""
    total: Dim = 1
    for extent in shape:
        total = total * extent
    return total


# Row-major regrouping


def regroup(output: Shape, given: Shape, at: Shape) -> Shape:
    """Where the element at position `at` of `output` lies in `given`, in row-major order.

    The shapes are cut where their leading products agree, so that axes which survive are
    indexed directly; only within a cut the position is flattened and split again. Axes of
    extent 1 take no part. Of nothing, every element lies at the beginning.
    """
    index: list[Dim] = [0] * len(given)
    if 0 in given:
        return tuple(index)
    for targets, sources in _cuts(output, given):
        flat: Dim = 0
        for axis in targets:
            flat = flat * output[axis] + at[axis]
        below: Dim = 1
        for axis in reversed(sources[1:]):
            index[axis] = (flat // below) % given[axis]
            below = below * given[axis]
        if sources:
            index[sources[0]] = flat // below
    return tuple(index)


def _cuts(output: Shape, given: Shape) -> list[tuple[list[int], list[int]]]:
    """Runs of axes of either shape, without those of extent 1, that hold as many elements."""
    targets = [axis for axis, extent in enumerate(output) if extent != 1]
    sources = [axis for axis, extent in enumerate(given) if extent != 1]
    ends = {product(tuple(given[a] for a in sources[:n])): n for n in range(len(sources) + 1)}
    cuts: list[tuple[list[int], list[int]]] = []
    first = begin = 0
    for stop in range(1, len(targets) + 1):
        end = ends.get(product(tuple(output[a] for a in targets[:stop])))
        if end is not None and end > begin:
            cuts.append((targets[first:stop], sources[begin:end]))
            first, begin = stop, end
    return cuts


def kernel_regroup(call: Call) -> TensorExpr:
    """y[i..] = x[the same place in row-major order]"""
    x, (out,) = call.var("x"), call.outputs
    axes = axes_over(out.shape)
    index = regroup(out.shape, x.type.shape, tuple(axis.i for axis in axes))
    return TensorExpr((x,), (Stage(TensorVar("y", out), axes, Read(x, index)),), ("y",))


def field_regroup(call: Call) -> WindowRule:
    """Space that survives is seen point by point; where none is left, all of it is seen."""
    given, (out,) = call.type("x").shape, call.outputs
    if given[2:] == out.shape[2:]:
        return Reach.POINTWISE
    return Reach.WHOLE if out.rank <= 2 else Reach.DERIVED


# Records


def resolve_flatten(call: Call) -> Mapping[str, Any]:
    """Axes `start` to `end` exist and are in order; raises OpError otherwise."""
    rank = call.type("x").rank
    start, end = call["start"], call["end"]
    for name, axis in (("start", start), ("end", end)):
        if not -rank <= axis < rank:
            raise OpError(
                f"{name} {axis} does not exist in {call.type('x')}",
                attributes=(name,),
                operands=("x",),
            )
    if start % rank > end % rank:
        raise OpError(f"start {start} lies behind end {end}", attributes=("start", "end"))
    return call.attributes


def infer_flatten(call: Call) -> tuple[TensorType, ...]:
    """x, the axes from start to end as one."""
    x = call.type("x")
    start, end = call["start"] % x.rank, call["end"] % x.rank
    shape = (*x.shape[:start], product(x.shape[start : end + 1]), *x.shape[end + 1 :])
    return (TensorType(x.dtype, shape),)


def resolve_reshape(call: Call) -> Mapping[str, Any]:
    """The shape without -1, of which there is at most one. Raises OpError for negative extents, and
    where x does not provably have as many elements."""
    x, given = call.type("x"), tuple(call["shape"])
    unknown = [axis for axis, extent in enumerate(given) if extent == -1]
    if len(unknown) > 1:
        raise OpError("reshape can find one extent of -1, not several", attributes=("shape",))
    for extent in given:
        _, most = bounds(extent)  # one that may be less is held to it when it is known
        if extent != -1 and most is not None and most < 0:
            help = ("-1 stands once for what is left",)
            raise OpError(f"{extent} is no extent", attributes=("shape",), help=help)
    known = product(tuple(extent for extent in given if extent != -1))
    total = x.elements
    if not unknown:
        if known != total:
            what = f"cannot reshape {x} to {format_shape(given)}"
            error = disagreement(what, total, known, ("x",), ("shape",))
            others = (known_but(given, axis) for axis in range(len(given)))
            if x.rank and exact_div(total, known) == x.shape[0]:
                error.help = (f"the batch comes first: {format_shape((x.shape[0], *given))}",)
            elif any(exact_div(total, other) is not None for other in others):
                error.help = error.help or ("one size may be -1: it is worked out",)
            raise error
        return {**call.attributes, "shape": given}
    extent = exact_div(total, known)
    if extent is None:
        raise OpError(
            f"{x} holds {total} elements, which do not divide by {known}",
            attributes=("shape",),
            operands=("x",),
        )
    shape = (*given[: unknown[0]], extent, *given[unknown[0] + 1 :])
    return {**call.attributes, "shape": shape}


def known_but(shape: Sequence[Dim], axis: int) -> Dim:
    """The elements of a shape for each position along an axis."""
    return product((*shape[:axis], *shape[axis + 1 :]))


def infer_reshape(call: Call) -> tuple[TensorType, ...]:
    """y[shape..] of the dtype of x."""
    return (TensorType(call.type("x").dtype, tuple(call["shape"])),)


def gradient_regroup(p: Pullback) -> Gradients:
    """dx = dy under the shape of x"""
    return {"x": p.build.reshape(p.dy, p.operand("x").type.shape)}


BACK = Rule(gradient_regroup, "positions in mixed radix; the inverse is a reshape")

FLATTEN = OpDef(
    name="flatten",
    aliases=(),
    doc="All axes from `start` to `end` as one, in row-major order.",
    operands=(Operand("x"),),
    attributes=(
        Attribute("start", Kind.INT, 1, "first axis; 1 keeps the batch, as PyTorch's module"),
        Attribute("end", Kind.INT, -1, "last axis"),
    ),
    outputs=("y",),
    resolve=resolve_flatten,
    state=no_state,
    infer=infer_flatten,
    window=field_regroup,
    cost=no_contraction,
    kernel=kernel_regroup,
    gradient=BACK,
)

RESHAPE = OpDef(
    name="reshape",
    aliases=(),
    doc="The same elements in row-major order under another shape.",
    operands=(Operand("x"),),
    attributes=(
        Attribute("shape", Kind.SHAPE, REQUIRED, "the new shape; -1 once for what is left"),
    ),
    outputs=("y",),
    resolve=resolve_reshape,
    state=no_state,
    infer=infer_reshape,
    window=field_regroup,
    cost=no_contraction,
    kernel=kernel_regroup,
    gradient=BACK,
)


def resolve_squeeze(call: Call) -> Mapping[str, Any]:
    """Axes in order, from 0 on. Raises OpError for axes that do not exist or are not 1."""
    x = call.type("x")
    axes = resolve_axes(call, "axes", x.rank)
    for axis in axes:
        if x.shape[axis] != 1:
            single = [i for i, extent in enumerate(x.shape) if extent == 1]
            raise OpError(
                f"axis {axis} of {x} is not 1",
                attributes=("axes",),
                operands=("x",),
                help=(f"of extent 1: {single}",) if single else (),
            )
    return {**call.attributes, "axes": axes}


def infer_squeeze(call: Call) -> tuple[TensorType, ...]:
    """x without the axes."""
    x = call.type("x")
    kept = (extent for axis, extent in enumerate(x.shape) if axis not in call["axes"])
    return (TensorType(x.dtype, tuple(kept)),)


SQUEEZE = OpDef(
    name="squeeze",
    aliases=(),
    doc="x without some axes of extent 1.",
    operands=(Operand("x"),),
    attributes=(Attribute("axes", Kind.INTS, REQUIRED, "the axes to drop"),),
    outputs=("y",),
    resolve=resolve_squeeze,
    state=no_state,
    infer=infer_squeeze,
    window=field_regroup,
    cost=no_contraction,
    kernel=kernel_regroup,
    gradient=BACK,
)


def resolve_unsqueeze(call: Call) -> Mapping[str, Any]:
    """Axes of the output in order, from 0 on; raises OpError for others."""
    given = call["axes"]
    count = 1 if isinstance(given, int) else len(given)
    return {**call.attributes, "axes": resolve_axes(call, "axes", call.type("x").rank + count)}


def infer_unsqueeze(call: Call) -> tuple[TensorType, ...]:
    """x with axes of extent 1."""
    x = call.type("x")
    extents = list(x.shape)
    for axis in call["axes"]:
        extents.insert(axis, 1)
    return (TensorType(x.dtype, tuple(extents)),)


UNSQUEEZE = OpDef(
    name="unsqueeze",
    aliases=(),
    doc="x with new axes of extent 1.",
    operands=(Operand("x"),),
    attributes=(Attribute("axes", Kind.INTS, REQUIRED, "where they stand in the result"),),
    outputs=("y",),
    resolve=resolve_unsqueeze,
    state=no_state,
    infer=infer_unsqueeze,
    window=field_regroup,
    cost=no_contraction,
    kernel=kernel_regroup,
    gradient=BACK,
)

OPERATORS = (FLATTEN, RESHAPE, SQUEEZE, UNSQUEEZE)

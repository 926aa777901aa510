"""Elements at positions that are data: embeddings, permutations, nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    WindowRule,
    derived,
    no_contraction,
    no_state,
)
from convdsl.ir.places import resolve_places
from convdsl.ir.shapes import disagreement, known_size, resolve_axis
from convdsl.kernel.expr import Read, Stage, TensorExpr, TensorVar, axes_over, lookup
from convdsl.tensor import DType, TensorType, bounds


def resolve_take(call: Call) -> Mapping[str, Any]:
    """x, any dtype, positions of i64, and the axis of x from 0 on. Raises OpError for others."""
    positions = call.type("positions")
    if positions.dtype is not DType.I64:
        help = ("cut off what stands behind the point: `cast(positions, i64)`",)
        raise OpError(f"positions are i64, not {positions}", operands=("positions",), help=help)
    return {**call.attributes, "axis": resolve_axis(call)}


def infer_take(call: Call) -> tuple[TensorType, ...]:
    """y, the axes of the positions in the place of the axis of x."""
    x, positions = call.type("x"), call.type("positions")
    axis: int = call["axis"]
    shape = (*x.shape[:axis], *positions.shape, *x.shape[axis + 1 :])
    return (TensorType(x.dtype, shape),)


def field_take(call: Call) -> WindowRule:
    """Batch and channels have no place; along space any position may be read."""
    is_list = call.type("positions").rank == 1
    return Reach.POINTWISE if call["axis"] < 2 and is_list else Reach.DERIVED


def kernel_take(call: Call) -> TensorExpr:
    """y[a.., p.., b..] = x[a.., positions[p..], b..]"""
    x, positions = call.var("x"), call.var("positions")
    (out,) = call.outputs
    axis: int = call["axis"]
    axes = axes_over(out.shape)
    at = [a.i for a in axes]
    last = axis + positions.type.rank
    place = Read(positions, tuple(at[axis:last]))
    body = lookup(x, (*at[:axis], place, *at[last:]), from_end=True)
    return TensorExpr((x, positions), (Stage(TensorVar("y", out), axes, body),), ("y",))


TAKE = OpDef(
    name="take",
    aliases=(),
    doc="""The elements of x at positions along an axis; -1 is the last one.

    Of a position that the axis has not, the nearest one is taken.""",
    operands=(Operand("x"), Operand("positions")),
    attributes=(Attribute("axis", Kind.INT, 1, "axis of x that the positions count along"),),
    outputs=("y",),
    resolve=resolve_take,
    state=no_state,
    infer=infer_take,
    window=field_take,
    cost=no_contraction,
    kernel=kernel_take,
    gradient=DERIVED,
)

# At a position for every element


def resolve_take_along(call: Call) -> Mapping[str, Any]:
    """x and positions of the same rank, these nowhere longer than x but along the axis, from 0 on.
    Raises OpError for others."""
    resolved = resolve_take(call)
    x, positions = call.type("x"), call.type("positions")
    what = f"cannot take {positions} from {x} along axis {resolved['axis']}"
    if x.rank != positions.rank:
        raise OpError(f"{what}: their ranks differ", operands=("positions", "x"))
    for axis, (own, wanted) in enumerate(zip(x.shape, positions.shape, strict=True)):
        if axis != resolved["axis"] and own != wanted:
            low, _ = bounds(own - wanted)
            if low is None or low < 0:
                raise disagreement(what, own, wanted, ("positions", "x"))
    return resolved


def infer_take_along(call: Call) -> tuple[TensorType, ...]:
    """y, as the positions, of the dtype of x."""
    return (TensorType(call.type("x").dtype, call.type("positions").shape),)


def field_take_along(call: Call) -> WindowRule:
    """Batch and channels have no place; along space any position may be read."""
    return Reach.POINTWISE if call["axis"] < 2 else Reach.DERIVED


def kernel_take_along(call: Call) -> TensorExpr:
    """y[a.., i, b..] = x[a.., positions[a.., i, b..], b..]"""
    x, positions, (out,) = call.var("x"), call.var("positions"), call.outputs
    axes = axes_over(out.shape)
    at = tuple(axis.i for axis in axes)
    index: list[Any] = list(at)
    index[call["axis"]] = Read(positions, at)
    body = lookup(x, tuple(index), from_end=True)
    return TensorExpr((x, positions), (Stage(TensorVar("y", out), axes, body),), ("y",))


TAKE_ALONG = OpDef(
    name="take_along",
    aliases=("gather_elements",),
    doc="""For every element the one of x at a position of its own along an axis; -1 is the last.

    NumPy's take_along_axis, ONNX's GatherElements, PyTorch's gather. Of a position that the axis
    has not, the nearest one is taken.""",
    operands=(Operand("x"), Operand("positions")),
    attributes=(Attribute("axis", Kind.INT, 1, "axis of x that the positions count along"),),
    outputs=("y",),
    resolve=resolve_take_along,
    state=no_state,
    infer=infer_take_along,
    window=field_take_along,
    cost=no_contraction,
    kernel=kernel_take_along,
    gradient=DERIVED,
)


# At positions along several axes


def infer_take_at(call: Call) -> tuple[TensorType, ...]:
    """y, the axes of the positions but the last, and those of x that they say nothing of."""
    x, positions = call.type("x"), call.type("positions")
    said = call["batch"] + known_size(call, "positions", positions.rank - 1)
    return (TensorType(x.dtype, (*positions.shape[:-1], *x.shape[said:])),)


def kernel_take_at(call: Call) -> TensorExpr:
    """y[b.., p.., r..] = x[b.., positions[b.., p.., 0], positions[b.., p.., 1], .., r..]"""
    x, positions, (out,) = call.var("x"), call.var("positions"), call.outputs
    axes = axes_over(out.shape)
    at = tuple(axis.i for axis in axes)
    own, batch = positions.type.rank - 1, call["batch"]
    count = known_size(call, "positions", own)
    places = tuple(Read(positions, (*at[:own], k)) for k in range(count))
    body = lookup(x, (*at[:batch], *places, *at[own:]), from_end=True)
    return TensorExpr((x, positions), (Stage(TensorVar("y", out), axes, body),), ("y",))


TAKE_AT = OpDef(
    name="take_at",
    aliases=("gather_nd",),
    doc="""Parts of x at positions along its first axes: a row of positions says one place.

    ONNX's GatherND; -1 is the last position. Of a position that an axis has not, the nearest one
    is taken.""",
    operands=(Operand("x"), Operand("positions")),
    attributes=(
        Attribute("batch", Kind.INT, 0, "leading axes that both have in common", minimum=0),
    ),
    outputs=("y",),
    resolve=resolve_places,
    state=no_state,
    infer=infer_take_at,
    window=derived,
    cost=no_contraction,
    kernel=kernel_take_at,
    gradient=DERIVED,
)

OPERATORS = (TAKE, TAKE_ALONG, TAKE_AT)

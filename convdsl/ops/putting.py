"""Elements put at positions that are data: masks painted, caches updated, parts assigned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from convdsl.ir.opdef import (
    DERIVED,
    Attribute,
    Call,
    Derived,
    Kind,
    OpDef,
    Operand,
    OpError,
    Reach,
    WindowRule,
    derived,
    no_contraction,
    no_state,
    same_type,
)
from convdsl.ir.places import digits, resolve_places, row_major
from convdsl.ir.shapes import disagreement, known_size, resolve_axis
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Compare,
    Expr,
    IndexValue,
    Pick,
    Read,
    Select,
    Stage,
    TensorExpr,
    TensorVar,
    axes_over,
    lift,
)
from convdsl.kernel.scatter import combined_at
from convdsl.tensor import Dim, DType, TensorType, bounds

LAST = "last"
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "max", "min": "min"}

_NOWHERE = -(2**40)
"""No position, however many from the end are counted."""


def _check_types(call: Call) -> None:
    """x and updates of one dtype, positions of i64, numbers where they are combined."""
    x, positions, updates = (call.type(name) for name in ("x", "positions", "updates"))
    if positions.dtype is not DType.I64:
        help = ("cut off what stands behind the point: `cast(positions, i64)`",)
        raise OpError(f"positions are i64, not {positions}", operands=("positions",), help=help)
    if x.dtype is not updates.dtype:
        raise OpError(f"cannot put {updates} into {x}", operands=("updates", "x"))
    if call["by"] != LAST and x.dtype is DType.BOOL:
        raise OpError(f"masks know no {call['by']}", attributes=("by",), operands=("x",))


def _from_end(position: Expr, extent: Dim) -> Expr:
    """The position, -1 being the last."""
    counted = position + IndexValue(extent, DType.I64)
    return Select(Compare("lt", position, lift(0, DType.I64)), counted, position)


def _reached(
    call: Call, axes: Sequence[Axis], terms: Sequence[Axis], place: Axis, at: Expr, update: Read
) -> Stage:
    """What reaches each place of `axes` of all `terms`: the number of the last one, counted
    row-major (less than 0 where there is none), or all combined."""
    op, name, value = _REDUCTIONS.get(call["by"], "max"), "total", update
    if call["by"] == LAST:
        number = row_major([term.i for term in terms], [term.extent for term in terms])
        name, value = "which", IndexValue(number, DType.I64)
    type = TensorType(value.dtype, tuple(axis.extent for axis in axes))
    body = combined_at(op, tuple(terms), place, at, value)
    return Stage(TensorVar(name, type), tuple(axes), body)


# One position for every element


def resolve_put_along(call: Call) -> Mapping[str, Any]:
    """positions and updates of one shape, of the rank of x and but for the axis not longer, the
    axis from 0 on. Raises OpError for others."""
    _check_types(call)
    x, positions, updates = (call.type(name) for name in ("x", "positions", "updates"))
    axis = resolve_axis(call)
    what = f"cannot put {updates} at {positions} into {x}"
    if not x.rank == positions.rank == updates.rank:
        raise OpError(f"{what}: their ranks differ", operands=("updates", "positions", "x"))
    for number, (own, at, new) in enumerate(
        zip(x.shape, positions.shape, updates.shape, strict=True)
    ):
        if at != new:
            raise disagreement(what, at, new, ("positions", "updates"))
        low, _ = bounds(own - at)
        if number != axis and own != at and (low is None or low < 0):
            raise disagreement(what, own, at, ("x", "positions"))
    return {**call.attributes, "axis": axis}


def field_put_along(call: Call) -> WindowRule:
    """Batch and channels have no place; along space any position may be written."""
    return Reach.POINTWISE if call["axis"] < 2 else Reach.DERIVED


def kernel_put_along(call: Call) -> TensorExpr:
    """which[a.., p, b..] = the last i with positions[a.., i, b..] = p, or less than 0
    y[a.., p, b..] = updates[a.., which, b..], or x[a.., p, b..] where there is none

    Combined: y = x <by> (all updates[a.., i, b..] with positions[a.., i, b..] = p)."""
    names = ("x", "positions", "updates")
    x, positions, updates = (call.var(name) for name in names)
    axis: int = call["axis"]
    axes = axes_over(x.type.shape)
    term = Axis("j", positions.type.shape[axis])
    here = tuple(a.i for a in axes)

    def along(index: Dim) -> tuple[Dim, ...]:
        return (*here[:axis], index, *here[axis + 1 :])

    shorter = any(
        n != axis and a != b
        for n, (a, b) in enumerate(zip(x.type.shape, positions.type.shape, strict=True))
    )
    nowhere, nothing = (_NOWHERE, 0) if shorter else (None, None)
    at = _from_end(Read(positions, along(term.i), nowhere), x.type.shape[axis])
    update = Read(updates, along(term.i), nothing)
    stage = _reached(call, axes, [term], axes[axis], at, update)
    own, found = Read(x, here), Read(stage.target, here)
    if call["by"] == LAST:
        number = Axis("number", term.extent)
        body = _if_any(found, number, Read(updates, along(number.i), nothing), own)
    else:
        body = Binary(call["by"], own, found)
    y = Stage(TensorVar("y", call.outputs[0]), axes, body)
    return TensorExpr((x, positions, updates), (stage, y), ("y",))


def _if_any(which: Expr, number: Axis, update: Expr, own: Expr) -> Expr:
    """The update at the number that is said, else what is there."""
    chosen = Pick(number, which, update)
    return Select(Compare("ge", which, lift(0, DType.I64)), chosen, own)


_BY = Attribute(
    "by",
    Kind.STRING,
    LAST,
    "what is made of several for one place: the last stays, or all are combined with x",
    choices=(LAST, *_REDUCTIONS),
    keyword_only=True,
)

PUT_ALONG = OpDef(
    name="put_along",
    aliases=("scatter_elements",),
    doc="""x, with updates at positions along an axis, one for each update; -1 is the last.

    NumPy's put_along_axis, ONNX's ScatterElements, PyTorch's scatter. Positions that the axis has
    not are left out.""",
    operands=(Operand("x"), Operand("positions"), Operand("updates")),
    attributes=(
        Attribute("axis", Kind.INT, 1, "axis of x that the positions count along"),
        _BY,
    ),
    outputs=("y",),
    resolve=resolve_put_along,
    state=no_state,
    infer=same_type,
    window=field_put_along,
    cost=no_contraction,
    kernel=kernel_put_along,
    gradient=DERIVED,
)


# Positions along several axes


def resolve_put_at(call: Call) -> Mapping[str, Any]:
    """positions[p.., R], updates[p.., r..] and x[q.., r..], R axes q; raises OpError otherwise."""
    _check_types(call)
    resolved = resolve_places(call)
    x, positions, updates = (call.type(name) for name in ("x", "positions", "updates"))
    said = known_size(call, "positions", positions.rank - 1)
    wanted = (*positions.shape[:-1], *x.shape[said:])
    what = f"cannot put {updates} at {positions} into {x}"
    if updates.rank != len(wanted):
        raise OpError(
            f"{what}: updates have {len(wanted)} axes then", operands=("updates", "positions", "x")
        )
    for own, other in zip(updates.shape, wanted, strict=True):
        if own != other:
            raise disagreement(what, own, other, ("updates", "positions", "x"))
    return resolved


def kernel_put_at(call: Call) -> TensorExpr:
    """at[p..] = positions[p.., :] as one number q, row-major; less than 0 where an axis has it not
    which[q] = the last p.. with at[p..] = q, counted row-major, or less than 0
    y[q.., r..] = updates[which.., r..], or x[q.., r..] where there is none

    Combined: y = x <by> (all updates[p.., r..] with at[p..] = q)."""
    names = ("x", "positions", "updates")
    x, positions, updates = (call.var(name) for name in names)
    own = positions.type.rank - 1
    said = known_size(call, "positions", own)
    terms = tuple(Axis(f"j{k}", extent) for k, extent in enumerate(positions.type.shape[:-1]))
    at = TensorVar("at", TensorType(DType.I64, positions.type.shape[:-1]))
    flat = _flat(positions, terms, x.type.shape[:said])
    rest = axes_over(x.type.shape)[said:]
    place = Axis("place", prod(x.type.shape[:said]))
    keeps = () if call["by"] == LAST else rest
    term_at = tuple(term.i for term in terms)
    rest_at = tuple(axis.i for axis in rest)

    axes = axes_over(x.type.shape)
    here = tuple(axis.i for axis in axes)
    update = Read(updates, (*term_at, *rest_at))
    stage = _reached(call, (place, *keeps), terms, place, Read(at, term_at), update)
    number = row_major(here[:said], x.type.shape[:said])
    own_x, found = Read(x, here), Read(stage.target, (number, *(axis.i for axis in keeps)))
    if call["by"] == LAST:
        every = Axis("number", prod(term.extent for term in terms))
        shape = tuple(term.extent for term in terms)
        chosen = Read(updates, (*digits(every.i, shape), *rest_at))
        body = _if_any(found, every, chosen, own_x)
    else:
        body = Binary(call["by"], own_x, found)
    y = Stage(TensorVar("y", call.outputs[0]), axes, body)
    inputs = (x, positions, updates)
    return TensorExpr(inputs, (Stage(at, terms, flat), stage, y), ("y",))


def _flat(positions: TensorVar, terms: Sequence[Axis], shape: Sequence[Dim]) -> Expr:
    """The place that a row says, counted row-major; less than 0 where an axis has it not."""
    number: Expr | None = None
    inside: Expr | None = None
    for k, extent in enumerate(shape):
        size = IndexValue(extent, DType.I64)
        position = _from_end(Read(positions, (*(term.i for term in terms), k)), extent)
        number = position if number is None else number * size + position
        within = Binary(
            "and",
            Compare("ge", position, lift(0, DType.I64)),
            Compare("lt", position, size),
        )
        inside = within if inside is None else Binary("and", inside, within)
    assert number is not None
    assert inside is not None
    return Select(inside, number, lift(-1, DType.I64))


PUT_AT = OpDef(
    name="put_at",
    aliases=("scatter_nd",),
    doc="""x, with updates at positions along its first axes: a row of positions says one place.

    ONNX's ScatterND; -1 is the last position. Places that x has not are left out.""",
    operands=(Operand("x"), Operand("positions"), Operand("updates")),
    attributes=(_BY,),
    outputs=("y",),
    resolve=resolve_put_at,
    state=no_state,
    infer=same_type,
    window=derived,
    cost=no_contraction,
    kernel=kernel_put_at,
    gradient=Derived(search=True),  # of no updates at all
)

OPERATORS = (PUT_ALONG, PUT_AT)

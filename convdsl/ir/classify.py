"""What kind of operator this is, read off its tensor expression and never off its name.

Passes decide by it what may be fused, lowering which generic schedule serves.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Compare,
    Expr,
    Read,
    Reduce,
    Select,
    Stage,
    TensorExpr,
    Unary,
    reads,
    walk,
)
from convdsl.tensor import Dim, substitute, symbols_of


class OpClass(enum.Enum):
    """The classes of operators, from the cheapest to schedule to the dearest."""

    MAP = "map"  # each output element from the elements at its own position
    MOVEMENT = "movement"  # elements at other positions, untouched
    WINDOW = "window"  # a combination over a neighbourhood
    REDUCTION = "reduction"  # a combination over whole axes
    CONTRACTION = "contraction"  # sums of products of two tensors


def classify(expr: TensorExpr) -> OpClass:
    """The class of a tensor expression: that of its dearest stage."""
    order = list(OpClass)
    return max((_classify_stage(stage) for stage in expr.stages), key=order.index)


def _classify_stage(stage: Stage) -> OpClass:
    reductions = [node for node in walk(stage.body) if isinstance(node, Reduce)]
    if any(_is_contraction(node) for node in reductions):
        return OpClass.CONTRACTION
    if reductions:
        windowed = any(_slides(node, stage.axes) for node in reductions)
        return OpClass.WINDOW if windowed else OpClass.REDUCTION
    if all(is_broadcast(read, stage.axes) for read in reads(stage.body)):
        return OpClass.MAP
    arithmetic = any(isinstance(node, (Unary, Binary, Compare)) for node in walk(stage.body))
    return OpClass.WINDOW if arithmetic else OpClass.MOVEMENT


def _is_contraction(node: Reduce) -> bool:
    """A sum over products whose factors read different tensors along the summed axes."""
    if node.op != "sum":
        return False
    summed = {axis.name for axis in node.axes}
    seen: list[set[str]] = []
    for factor in _factors(node.body):
        names = {r.tensor.name for r in reads(factor) if _mentions(r.index, summed)}
        if names and any(names.isdisjoint(other) for other in seen):
            return True
        seen += [names] if names else []
    return False


def _factors(e: Expr) -> Iterator[Expr]:
    if isinstance(e, Binary) and e.op == "mul":
        yield from _factors(e.a)
        yield from _factors(e.b)
    elif isinstance(e, Select):  # a guard around a product: transposed convolution
        yield from _factors(e.yes)
    else:
        yield e


def _slides(node: Reduce, axes: tuple[Axis, ...]) -> bool:
    """True where one index component mixes an output axis with a reduced one."""
    outer = {a.name for a in axes if a.extent != 1}
    inner = {a.name for a in node.axes if a.extent != 1}
    return any(
        _mentions((component,), outer) and _mentions((component,), inner)
        for read in reads(node.body)
        for component in read.index
    )


def _mentions(index: tuple[Dim, ...], names: set[str]) -> bool:
    return any(s.name in names for component in index for s in symbols_of(component))


def is_broadcast(read: Read, axes: tuple[Axis, ...]) -> bool:
    """True for a read at the output's own position, axes of extent 1 repeated.

    The operand's axes are some of the output's, in their order: `x[n, c, h, w]`, `scale[c]`,
    `gate[n, c, 0, 0]`.
    """
    if read.outside is not None:
        return False
    rest = iter(axes)
    for component, extent in zip(read.index, read.tensor.type.shape, strict=True):
        if component == 0 and extent == 1:
            continue
        if not any(component == axis.i and extent == axis.extent for axis in rest):
            return False
    return True


def reads_in_place(expr: TensorExpr, operand: str) -> bool:
    """True where a one-stage map reads `operand` nowhere but at the output's own position."""
    if len(expr.stages) != 1:
        return False
    (stage,) = expr.stages
    found = [read for read in reads(stage.body) if read.tensor.name == operand]
    return bool(found) and all(is_in_place(read, stage.axes) for read in found)


def is_in_place(read: Read, axes: tuple[Axis, ...]) -> bool:
    """`x[n, c, h, w]` of the output's shape; an axis of extent 1 may be indexed by 0."""
    shape = tuple(axis.extent for axis in axes)
    return (
        read.tensor.type.shape == shape
        and read.outside is None
        and all(
            at == axis.i or (at == 0 and axis.extent == 1)
            for at, axis in zip(read.index, axes, strict=True)
        )
    )


def reduced_axes(
    stage: Stage, names: Collection[str], shape: tuple[Dim, ...]
) -> dict[str, int] | None:
    """For a stage that reads tensors of one shape inside reductions, each position once: which of
    their axes each of its own axes, and each axis of its reductions, runs along (axes of extent 1
    left out). None for any other stage.

        y[c] = sum over i, j, k of x[i, c, j, k]    {c: 1, i: 0, j: 2, k: 3}
    """
    reductions = [node for node in walk(stage.body) if isinstance(node, Reduce)]
    inside = [[r for r in reads(node.body) if r.tensor.name in names] for node in reductions]
    if sum(map(len, inside)) != sum(r.tensor.name in names for r in reads(stage.body)):
        return None
    found: dict[str, int] | None = None
    for node, inner in zip(reductions, inside, strict=True):
        for read in inner:
            along = _along(read, (*stage.axes, *node.axes), shape)
            if along is None or found not in (None, along):
                return None
            found = along
        wide = {a.name for a in (*stage.axes, *node.axes) if a.extent != 1}
        if not inner or found is None or wide != found.keys():
            return None
    return found


def reduces_whole(expr: TensorExpr, operands: Collection[str]) -> bool:
    """True for one stage that reduces these operands, all of one shape, each position once."""
    if len(expr.stages) != 1 or not operands:
        return False
    (shape, *others) = {x.type.shape for x in expr.inputs if x.name in operands}
    return not others and reduced_axes(expr.stages[0], operands, shape) is not None


def _along(read: Read, axes: tuple[Axis, ...], shape: tuple[Dim, ...]) -> dict[str, int] | None:
    """Which axis of a tensor each of these runs along, if the read meets each position once."""
    if read.tensor.type.shape != shape:
        return None
    single: dict[str, Dim] = {axis.name: 0 for axis in axes if axis.extent == 1}
    found: dict[str, int] = {}
    for position, (component, extent) in enumerate(zip(read.index, shape, strict=True)):
        index = substitute(component, single)
        axis = next((a for a in axes if index == a.i and a.extent == extent), None)
        if extent == 1 and index == 0:
            continue
        if axis is None or axis.name in found:
            return None
        found[axis.name] = position
    return found


def copied_operand(expr: TensorExpr) -> str | None:
    """The operand that a one-stage expression hands on unchanged, if that is all it does."""
    (stage, *others) = expr.stages
    body = stage.body
    if others or not isinstance(body, Read) or body.tensor.type != stage.target.type:
        return None
    return body.tensor.name if is_in_place(body, stage.axes) else None

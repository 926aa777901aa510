"""How values lie between kernels on a processor.

Axis 1 is blocked by as many channels as a vector has lanes of f32. Elements of other sizes are
blocked alike, and their vectors take more or fewer registers: a cast moves nothing, and one wide
value in a network leaves the others as they are.
"""

from __future__ import annotations

from convdsl.kernel.expr import Read, Reduce, Stage, reads, walk
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.cpu.generic import SHORTEST
from convdsl.schedules.emission import extent_of
from convdsl.schedules.layouts import Operands, has_channels_inside
from convdsl.tensor import DType, symbols_of


def layout_of(stage: Stage, operands: Operands, target: Target) -> Layout:
    """Blocked along axis 1, or plain."""
    shape, block = stage.target.type.sizes, target.lanes(DType.F32)
    plain = Layout(shape)
    if len(shape) < 3 or block == 1:
        return plain
    if _is_of_rows(stage, operands, block):
        return plain
    return Layout(shape, 1, block) if has_channels_inside(stage, operands, block) else plain


def _is_of_rows(stage: Stage, operands: Operands, lanes: int) -> bool:
    """Whether elements of something plain are moved, or windows of it reduced, and nothing else is
    read, to rows that fill a vector in part: vectors run along these, and nobody packs channels."""
    found, last = list(reads(stage.body)), stage.axes[-1]
    if len(found) != 1 or not found[0].index or extent_of(last) * SHORTEST < lanes:
        return False
    layout = operands.get(found[0].tensor.name)
    if layout is not None and layout.axis is not None:
        return False
    own, step = found[0].index[-1], coefficient(found[0].index[-1], last)
    if isinstance(stage.body, Read):
        return {symbol.name for symbol in symbols_of(own)} == {last.name}
    pools = any(isinstance(node, Reduce) and any(reads(node)) for node in walk(stage.body))
    return pools and step is not None and 0 < step <= lanes

"""How the operands of a task lie for a kernel whose vectors run along one axis."""

from __future__ import annotations

from collections.abc import Sequence

from convdsl.kernel.expr import Axis, Read
from convdsl.kernel.layout import Layout
from convdsl.schedules.task import Operand


def operand_layout(
    operand: Operand, reads: Sequence[Read], axis: Axis | None, block: int
) -> Layout:
    """The layout of an operand. A weight indexed by the vector axis is blocked along it, so that
    its last vector may be read whole."""
    if operand.layout is not None:
        return operand.layout
    shape = operand.var.type.sizes
    if axis is not None and block > 1:
        for read in reads:
            if read.tensor.name != operand.var.name:
                continue
            for position, index in enumerate(read.index):
                if index == axis.i:
                    return Layout(shape, position, block)
    return Layout(shape)

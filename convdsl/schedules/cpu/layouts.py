"""How values lie between kernels on a processor.

Axis 1 is blocked by as many channels as a vector has lanes of f32. Elements of other sizes are
blocked alike, and their vectors take more or fewer registers: a cast moves nothing, and one wide
value in a network leaves the others as they are.
"""

from __future__ import annotations

from convdsl.kernel.expr import Stage
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.layouts import Operands, has_channels_inside
from convdsl.tensor import DType


def layout_of(stage: Stage, operands: Operands, target: Target) -> Layout:
    """Blocked along axis 1, or plain."""
    shape, block = stage.target.type.sizes, target.lanes(DType.F32)
    plain = Layout(shape)
    if len(shape) < 3 or block == 1:
        return plain
    return Layout(shape, 1, block) if has_channels_inside(stage, operands, block) else plain

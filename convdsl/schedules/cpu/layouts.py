"""How values lie between kernels on a processor.

Vectors run across channels, so that windows slide over whole vectors: axis 1 is blocked by as
many channels as a vector has lanes of f32. Elements of other sizes are blocked alike, and their
vectors take more or fewer registers: a cast moves nothing, and one wide value in a network
leaves the others as they are. Blocks pay where axis 1 fills them, or where a sum of products
makes its channels side by side; products of matrices run along rows, and lie plain.
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.kernel.expr import Axis, Read, Stage, reads
from convdsl.kernel.layout import Layout
from convdsl.kernel.target import Target
from convdsl.schedules.contraction import depends, find_contraction, match_convolution
from convdsl.schedules.correlation import match_correlations
from convdsl.tensor import DType

Operands = Mapping[str, Layout | None]


def layout_of(stage: Stage, operands: Operands, target: Target) -> Layout:
    """Blocked along axis 1, or plain."""
    shape, block = stage.target.type.sizes, target.lanes(DType.F32)
    plain = Layout(shape)
    if len(shape) < 3 or block == 1:
        return plain
    return Layout(shape, 1, block) if _is_blocked(stage, operands, block) else plain


def _is_blocked(stage: Stage, operands: Operands, block: int) -> bool:
    axis, full = stage.axes[1], stage.target.type.sizes[1] >= block
    if match_convolution(stage) is not None:
        return True
    if match_correlations(stage):
        return False
    product = find_contraction(stage)
    if product is not None and product.of_matrices and product.m and product.n:
        return False
    if product is not None:
        factors = list(reads(product.reduce))
        weights = [factor for factor in factors if operands.get(factor.tensor.name) is None]
        if any(depends(index, axis) for factor in weights for index in factor.index):
            return True
    made = _made(stage, operands)
    along = [layout for read, layout in made if _stays(read, axis)]
    if along:
        return any(layout.axis == 1 for layout in along)
    largest = max((layout.size for _, layout in made), default=0)
    return full and all(layout.axis == 1 for _, layout in made if layout.size == largest)


def _made(stage: Stage, operands: Operands) -> list[tuple[Read, Layout]]:
    """Reads of what kernels made and what can be blocked."""
    found = [(read, operands.get(read.tensor.name)) for read in reads(stage.body)]
    return [(r, made) for r, made in found if made is not None and r.tensor.type.rank >= 3]


def _stays(read: Read, axis: Axis) -> bool:
    """Whether a tensor is read at the stage's own position on axis 1."""
    index, extent = read.index[1], read.tensor.type.shape[1]
    return extent == axis.extent and (index == axis.i or (axis.extent == 1 and index == 0))

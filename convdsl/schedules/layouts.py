"""Whether channels lie inside of the positions of a map, on any target.

Vectors run across channels, so that windows slide over whole vectors. It pays where axis 1 fills
them, or where a sum of products makes its channels side by side; products of matrices run along
rows, and lie plain.
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.kernel.expr import Axis, Read, Stage, reads
from convdsl.kernel.layout import Layout
from convdsl.schedules.contraction import (
    coefficient,
    depends,
    find_contraction,
    match_convolution,
)
from convdsl.schedules.correlation import match_correlations
from convdsl.tensor import symbols_of

Operands = Mapping[str, Layout | None]


def has_channels_inside(
    stage: Stage, operands: Operands, block: int, *, stored: bool = False
) -> bool:
    """Whether what a stage makes lies in blocks of channels, or with all of them inside: by the
    stage, and by how its operands lie. Of fewer channels than `block` less is expected. `stored`:
    where the target has products of halves too."""
    axis, full = stage.axes[1], stage.target.type.sizes[1] >= block
    if match_convolution(stage, stored=stored) is not None:
        return True
    if match_correlations(stage, stored=stored):
        return False
    product = find_contraction(stage, stored=stored)
    if product is not None and product.of_matrices and product.m and product.n:
        return False
    if product is not None:
        factors = list(reads(product.reduce))
        weights = [factor for factor in factors if operands.get(factor.tensor.name) is None]
        if any(depends(index, axis) for factor in weights for index in factor.index):
            return True
    if full and any(_slides(read, stage) for read in reads(stage.body)):
        return True
    given = ((read, read.tensor.name) for read in reads(stage.body))
    maps = [(r, name) for r, name in given if name in operands and r.tensor.type.rank > 2]
    along = [operands[name] for read, name in maps if _stays(read, axis)]
    if along:
        return any(layout is not None and layout.axis == 1 for layout in along)
    made = _made(stage, operands)
    largest = max((layout.size for _, layout in made), default=0)
    kept = [_becomes(r, layout, axis) for r, layout in made if layout.size == largest]
    return full and any(kept)


def _made(stage: Stage, operands: Operands) -> list[tuple[Read, Layout]]:
    """Reads of what kernels made."""
    found = [(read, operands.get(read.tensor.name)) for read in reads(stage.body)]
    return [(read, made) for read, made in found if made is not None]


def _slides(read: Read, stage: Stage) -> bool:
    """Whether windows run along the axes behind the channels, or rows are read in steps: over whole
    vectors of channels then."""
    if read.tensor.type.rank != len(stage.axes) or not _stays(read, stage.axes[1]):
        return False
    own = {axis.name: axis for axis in stage.axes}
    for index in read.index[2:]:
        names = {symbol.name for symbol in symbols_of(index)}
        moved = [own[name] for name in names if name in own]
        if (len(names) > 1 and moved) or any(coefficient(index, axis) != 1 for axis in moved):
            return True
    return False


def _becomes(read: Read, layout: Layout, axis: Axis) -> bool:
    """Whether vectors of channels are at hand: what is blocked hands on channels of its own, what
    is plain has them side by side; rows of two axes at most are taken apart in any case."""
    if read.tensor.type.rank < 3:
        return True
    place = 1 if layout.axis == 1 else -1
    return {symbol.name for symbol in symbols_of(read.index[place])} == {axis.name}


def _stays(read: Read, axis: Axis) -> bool:
    """Whether a tensor is read at the stage's own position on axis 1."""
    index, extent = read.index[1], read.tensor.type.shape[1]
    return extent == axis.extent and (index == axis.i or (axis.extent == 1 and index == 0))

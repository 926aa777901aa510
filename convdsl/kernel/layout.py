"""Where a tensor's elements lie in its flat buffer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.expr import Axis, Read, Stage, TensorVar
from convdsl.tensor import Dim, TensorType, floor_div
from convdsl.tensor.dim import Coefficient, Monomial, make, terms_of
from convdsl.tensor.records import record


@record
class Layout:
    """Row-major over `shape`; with `axis` given that axis is split into blocks of `block`, and
    the position within the block comes last: [N][C/block][H][W][block]. The last block is filled
    up; what lies in the filling is unspecified and never reaches a real element.

    pitch: elements from one block to the next, where each is a piece of a longer one: a part of the
        channels of what has all of them inside. 0: a block. Such a part is one block of no filling.
    """

    shape: tuple[int, ...]
    axis: int | None = None
    block: int = 1
    pitch: int = 0

    @property
    def blocks(self) -> int:
        """Number of blocks along the blocked axis."""
        assert self.axis is not None
        return -(-self.shape[self.axis] // self.block)

    @property
    def physical(self) -> tuple[int, ...]:
        """Extents of the array as it lies in memory, outermost first."""
        if self.axis is None:
            return self.shape
        outer = list(self.shape)
        outer[self.axis] = self.blocks
        return (*outer, self.block)

    @property
    def strides(self) -> tuple[int, ...]:
        """Elements from one index of each physical axis to the next."""
        return _strides(self)

    @property
    def held(self) -> int:
        """Elements, filling included."""
        return prod(self.physical)

    @property
    def size(self) -> int:
        """Elements from the first one of the buffer to the last."""
        return self.held if not self.pitch else self.held // self.block * self.pitch - self.gap

    @property
    def gap(self) -> int:
        """Elements of others between two blocks."""
        return self.pitch - self.block if self.pitch else 0

    def inside(self, pitch: int) -> Layout:
        """The same as a part of what has longer blocks."""
        assert self.blocks == 1
        assert self.block == self.shape[self.axis or 0] <= pitch
        return replace(self, pitch=pitch)

    def offset(self, index: Sequence[Dim]) -> Dim:
        """Element offset of a logical index."""
        parts = list(index)
        if self.axis is not None:
            position = parts[self.axis]
            block = 0 if self.blocks == 1 else floor_div(position, self.block)
            parts[self.axis] = block
            parts.append(position - block * self.block)
        terms: dict[Monomial, Coefficient] = {}
        for part, stride in zip(parts, self.strides, strict=True):
            for monomial, coefficient in terms_of(part):
                terms[monomial] = terms.get(monomial, 0) + coefficient * stride
        return make(terms)

    def pack(self, array: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """Write a logical array in this layout into a flat one, the filling zero. Neighbouring axes
        of the array may be one here."""
        assert not self.pitch
        array = array.reshape(self.shape)
        physical = out.reshape(self.physical)
        if self.axis is None:
            np.copyto(physical, array)
            return
        axis, whole = self.axis, self.shape[self.axis] // self.block
        moved = np.moveaxis(physical, -1, axis + 1)  # [... blocks, block ...]
        ahead = (slice(None),) * axis
        split = (*self.shape[:axis], whole, self.block, *self.shape[axis + 1 :])
        full = array[(*ahead, slice(whole * self.block))]
        np.copyto(moved[(*ahead, slice(whole))], full.reshape(split))
        rest = self.shape[axis] - whole * self.block
        if rest:
            last = moved[(*ahead, whole)]
            np.copyto(last[(*ahead, slice(rest))], array[(*ahead, slice(whole * self.block, None))])
            last[(*ahead, slice(rest, None))] = 0

    def stages(self, source: TensorVar) -> Iterator[tuple[int, Stage]]:
        """The same by arithmetic: stages that write the buffer, each with where it begins.
        Neighbouring axes of the source may be one here."""
        assert not self.pitch
        axes = tuple(Axis(f"i{k}", extent) for k, extent in enumerate(self.physical))
        index: list[Dim] = [axis.i for axis in axes[: len(self.shape)]]
        ragged = False
        if self.axis is not None:
            index[self.axis] = index[self.axis] * self.block + axes[-1].i
            ragged = self.shape[self.axis] % self.block > 0
        target = TensorVar("t0", TensorType(source.type.dtype, self.physical))
        place = tuple(_apart(index, self.shape, source.type.sizes))
        yield 0, Stage(target, axes, Read(source, place, 0.0 if ragged else None))

    def unpack(self, flat: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The logical array held by a flat buffer."""
        assert not self.pitch
        physical = flat[: self.size].reshape(self.physical)
        if self.axis is None:
            return physical
        moved = np.moveaxis(physical, -1, self.axis + 1)
        full = list(self.shape)
        full[self.axis] = self.blocks * self.block
        whole = moved.reshape(full)
        return np.take(whole, range(self.shape[self.axis]), axis=self.axis)

    def __str__(self) -> str:
        if self.axis is None:
            return "plain"
        apart = f", {self.pitch} apart" if self.pitch else ""
        return f"blocked(axis {self.axis} by {self.block}{apart})"


@lru_cache(maxsize=4096)  # every address asks
def _strides(layout: Layout) -> tuple[int, ...]:
    extents = layout.physical
    steps = (*extents[:-1], layout.pitch or extents[-1]) if extents else ()
    return tuple(prod(steps[axis + 1 :]) for axis in range(len(steps)))


def _apart(index: Sequence[Dim], merged: Sequence[int], shape: Sequence[int]) -> Iterator[Dim]:
    """The place in `shape` of a place in what it is when some neighbouring axes are one."""
    rest = list(shape)
    for number, (at, extent) in enumerate(zip(index, merged, strict=True), 1):
        own = [rest.pop(0)]
        while rest and (prod(own) < extent or number == len(merged)):
            own.append(rest.pop(0))
        for axis in range(len(own)):
            inner = prod(own[axis + 1 :])
            here = floor_div(at, inner) if inner > 1 else at
            yield here if axis == 0 else here - floor_div(at, inner * own[axis]) * own[axis]

"""Filters as Winograd's products on a card want them: U = G g G^T, a matrix for each product.

    U[G P][K][C]     P products of a tile; K and C of one of G groups, in whole vectors

What is known when weights are bound is transformed then, in double precision, and packed as the
second factor of any product; what is known in calls only is transformed by a kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.expr import Axis, Stage, TensorVar
from convdsl.schedules.contraction import Convolution, coefficient
from convdsl.schedules.cuda.matrix_pack import MatrixPack
from convdsl.schedules.cuda.tile import VECTOR
from convdsl.schedules.forms import form, of_filters
from convdsl.tensor import Dim, substitute
from convdsl.tensor.records import record


def whole_vectors(channels: int) -> int:
    """Channels with their filling."""
    return -(-channels // VECTOR) * VECTOR


@record
class FilterMatrices:
    """U of an array, packed by `MatrixPack` in pieces of `width` columns and `height` depths.

    shape: [G, K, C, taps...], K and C of one group.
    outputs: m of the form of each spatial axis.
    index: for each axis of the array where it begins, and how far each axis of `shape` moves it.
    chunk, rounded, vector: as for `MatrixPack`.
    """

    shape: tuple[int, ...]
    outputs: tuple[int, ...]
    index: tuple[int, ...]
    width: int
    height: int
    chunk: int = 0
    rounded: bool = False
    vector: int = 0

    @property
    def products(self) -> int:
        """Of a tile, for each pair of channels."""
        return prod(form(m, r).products for m, r in zip(self.outputs, self.shape[3:], strict=True))

    @property
    def matrices(self) -> tuple[int, int, int]:
        """The extents of U."""
        g, k, c = self.shape[:3]
        return g * self.products, whole_vectors(k), whole_vectors(c)

    @property
    def packed(self) -> MatrixPack:
        """How U is packed."""
        batch, columns, depths = self.matrices
        index = (0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1)
        fill = (VECTOR, VECTOR)
        sizes = (self.width, self.height, self.chunk)
        return MatrixPack(
            (batch,), (columns,), (depths,), fill, index, *sizes, self.rounded, self.vector
        )

    @property
    def size(self) -> int:
        return self.packed.size

    def pack(self, array: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        array = np.ascontiguousarray(array)
        rows = np.array(self.index).reshape(array.ndim, -1)
        first, *moves = (int(x) for x in np.array(array.strides, np.int64) @ rows)
        start = array.reshape(-1)[first // array.itemsize :]
        g, k, c, *taps = self.shape
        view = np.lib.stride_tricks.as_strided(start, self.shape, moves)
        forms = [form(m, r) for m, r in zip(self.outputs, taps, strict=True)]
        batch, columns, depths = self.matrices
        whole = np.zeros((g, self.products, columns, depths), array.dtype)
        taps_first = np.moveaxis(view, range(3, view.ndim), range(len(taps)))
        made = of_filters(forms, [False] * len(forms), taps_first)
        whole[:, :, :k, :c] = np.moveaxis(made.reshape(-1, g, k, c), 0, 1)
        self.packed.pack(whole.reshape(batch, columns, depths), out)

    def stages(self, source: TensorVar) -> Iterator[tuple[int, Stage]]:
        raise TypeError("filters that are known in calls only are transformed by a kernel")


def filter_index(conv: Convolution, g: Dim, k: Dim, c: Dim, taps: Sequence[Dim]) -> list[Dim]:
    """Where the array has the element that meets input channel c of group g on its way to output
    k, `taps` counted as the input runs."""
    at: dict[str, Dim] = {conv.k.name: g * conv.channels_out + k}
    if conv.c is not None:
        at[conv.c.name] = c
    for space, index, tap in zip(conv.space, conv.x.index[2:], taps, strict=True):
        if space.tap is not None:
            along = coefficient(index, space.tap)
            assert along is not None
            at[space.tap.name] = tap if along > 0 else space.taps - 1 - tap
    return [substitute(d, at) for d in conv.w.index]


def filter_matrices(conv: Convolution, outputs: Sequence[int], pack: MatrixPack) -> FilterMatrices:
    """The filters of a convolution for products whose second factor is packed so."""
    shape = (conv.groups, conv.channels_out, conv.channels_in, *(s.taps for s in conv.space))
    axes = [Axis(f"u{i}", extent) for i, extent in enumerate(shape)]
    g, k, c, *taps = (axis.i for axis in axes)
    index: list[int] = []
    for place in filter_index(conv, g, k, c, taps):
        first = substitute(place, {axis.name: 0 for axis in axes})
        moves = [coefficient(place, axis) for axis in axes]
        assert isinstance(first, int)
        index += [first, *(move for move in moves if move is not None)]
    pieces = (pack.width, pack.height, pack.chunk, pack.rounded, pack.vector)
    made = FilterMatrices(shape, tuple(outputs), tuple(index), *pieces)
    assert (made.packed, len(index)) == (pack, len(conv.w.index) * (1 + len(shape)))
    return made

"""The second factor of a product as blocks of threads copy it: each step's piece in one run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Expr,
    IndexCompare,
    Literal,
    Read,
    Select,
    Stage,
    TensorVar,
)
from convdsl.schedules.contraction import coefficient
from convdsl.schedules.cuda.gemm import Gemm, Run
from convdsl.schedules.cuda.lines import column_of, turned
from convdsl.schedules.emission import extent_of
from convdsl.schedules.phases import Part
from convdsl.tensor import Dim, DType, TensorType, floor_div, substitute
from convdsl.tensor.conversion import nearest_tf32
from convdsl.tensor.records import record


@record
class MatrixPack:
    """[batch][tile of columns][step][piece]: a piece is [depth][column], or with chunks
    [depth // chunk][column][depth % chunk]. Zeros where a run is filled up, and beyond its end.

    batch, columns, depths: extents of the axes of each run, and `fill` what the last ones of the
        latter two are filled up to a multiple of.
    index: for each axis of the array where it begins, and how far each of those axes moves it.
    width, height: columns and depths of a piece; `chunk`: depths of a chunk.
    rounded: to what tensor units read of f32.
    vector: depths that stay together where chunks are lines that warp groups read (`lines`).
        0: they are none.
    """

    batch: tuple[int, ...]
    columns: tuple[int, ...]
    depths: tuple[int, ...]
    fill: tuple[int, int]
    index: tuple[int, ...]
    width: int
    height: int
    chunk: int  # 0: none
    rounded: bool = False
    vector: int = 0

    @property
    def runs(self) -> tuple[Run, Run, Run]:
        """Batches, columns and depths, by axes of their own."""
        extents = (self.batch, self.columns, self.depths)
        steps = (1, *self.fill)
        return tuple(
            Run(tuple(Axis(f"{name}{i}", extent) for i, extent in enumerate(of)), step)
            for name, of, step in zip("gnk", extents, steps, strict=True)
        )  # pyright: ignore[reportReturnType]

    @property
    def tiles(self) -> int:
        return -(-self.runs[1].size // self.width)

    @property
    def steps(self) -> int:
        return -(-self.runs[2].size // self.height)

    @property
    def piece(self) -> int:
        """Elements that one step of a block copies."""
        return self.width * self.height

    @property
    def size(self) -> int:
        return prod(self.batch) * self.tiles * self.steps * self.piece

    def start(self, batch: Dim, tile: Dim, step: Dim) -> Dim:
        """Where a piece begins."""
        return ((batch * self.tiles + tile) * self.steps + step) * self.piece

    def pack(self, array: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        array = np.ascontiguousarray(array)
        strides = [stride // array.itemsize for stride in array.strides]
        rows = np.array(self.index).reshape(array.ndim, -1)
        first, *moves = (int(x) for x in np.array(strides, np.int64) @ rows)
        shape = (*self.batch, *self.columns, *self.depths)
        view = np.lib.stride_tricks.as_strided(
            array.reshape(-1)[first:], shape, [move * array.itemsize for move in moves]
        )
        outer, columns, depths = prod(self.batch), len(self.columns), len(self.depths)
        axes = [(0, 0)] * len(self.batch)
        for run, count in zip(self.runs[1:], (columns, depths), strict=True):
            more = run.extents[-1] - extent_of(run.axes[-1]) if run.axes else 0
            axes += [*([(0, 0)] * (count - 1)), (0, more)][: max(count, 0)]
        _, n, k = (run.size for run in self.runs)
        flat = np.pad(view, axes).reshape(outer, n, k)
        more = self.tiles * self.width - n, self.steps * self.height - k
        flat = np.pad(flat, ((0, 0), (0, more[0]), (0, more[1])))
        flat = flat.reshape(outer, self.tiles, self.width, self.steps, self.height)
        flat = flat.transpose(0, 1, 3, 4, 2)  # [batch][tile][step][depth][column]
        if self.chunk:
            count = self.height // self.chunk
            split = flat.reshape(*flat.shape[:3], count, self.chunk, self.width)
            flat = split.transpose(0, 1, 2, 3, 5, 4)
        if self.vector:
            flat = _lined(flat, self.vector)
        if self.rounded:
            flat = nearest_tf32(np.ascontiguousarray(flat))
        np.copyto(out.reshape(flat.shape), flat)

    def stages(self, source: TensorVar) -> Iterator[tuple[int, Stage]]:
        """The same by arithmetic."""
        batch, columns, depths = self.runs
        g, t, s = (
            Axis(name, extent)
            for name, extent in zip("gts", (batch.size, self.tiles, self.steps), strict=True)
        )
        j, i = Axis("j", self.width), Axis("i", self.chunk or self.height)
        inner, depth, column = (i, j), i.i, j.i
        if self.vector:
            piece = floor_div(i.i, self.vector)
            depth = turned(piece, j.i) * self.vector + i.i - piece * self.vector
            column = column_of(j.i)
        k = s.i * self.height + depth
        if self.chunk:
            c = Axis("c", self.height // self.chunk)
            inner, k = (c, j, i), k + c.i * self.chunk
        n = t.i * self.width + column
        places = (batch.place(g.i), columns.place(n), depths.place(k))
        read = Read(source, self._at({key: d for place in places for key, d in place.items()}))
        body: Expr = read
        for run, number in ((columns, n), (depths, k)):
            tests = [IndexCompare("lt", number, run.size)]
            if run.ragged:
                last = run.axes[-1]
                tests.append(IndexCompare("lt", run.place(number)[last.name], last.extent))
            condition: Expr = tests[0]
            for test in tests[1:]:
                condition = Binary("and", condition, test)
            body = Select(condition, body, Literal(0.0, read.dtype))
        if self.rounded:
            body = Cast(Cast(body, DType.TF32), read.dtype)
        axes = (g, t, s, *inner)
        type = TensorType(source.type.dtype, tuple(axis.extent for axis in axes))
        yield 0, Stage(TensorVar("t0", type), axes, body)

    def _at(self, place: dict[str, Dim]) -> tuple[Dim, ...]:
        axes = [place[axis.name] for run in self.runs for axis in run.axes]
        width = len(axes) + 1
        rows = (self.index[at : at + width] for at in range(0, len(self.index), width))
        return tuple(
            sum((move * axis for move, axis in zip(moves, axes, strict=True)), start=first)
            for first, *moves in rows
        )

    def of_part(self, part: Part) -> MatrixPack:
        """The same of a larger array of which only a part is read."""
        width = 1 + len(self.batch) + len(self.columns) + len(self.depths)
        index: list[int] = []
        for axis, (start, step) in enumerate(zip(part.starts, part.steps, strict=True)):
            first, *moves = self.index[axis * width : (axis + 1) * width]
            index += [start + step * first, *(step * move for move in moves)]
        return replace(self, index=tuple(index))


def _lined(flat: npt.NDArray[Any], vector: int) -> npt.NDArray[Any]:
    """Chunks as lines: [..][column][depth] -> [..][line][depth]."""
    lines, pieces = range(flat.shape[-2]), range(flat.shape[-1] // vector)
    column = np.array([column_of(line) for line in lines])
    piece = np.array([[turned(piece, line) for piece in pieces] for line in lines])
    split = flat[..., column, :].reshape(*flat.shape[:-1], len(pieces), vector)
    return split[..., np.array(lines)[:, None], piece, :].reshape(flat.shape)


def matrix_pack(gemm: Gemm, width: int, height: int, chunk: int = 0) -> MatrixPack | None:
    """How the second factor of a product is packed; None where its index is no sum of multiples of
    axes, or may leave the tensor."""
    runs = (gemm.batch, gemm.columns, gemm.depth)
    axes = [axis for run in runs for axis in run.axes]
    index: list[int] = []
    for place, extent in zip(gemm.b.index, gemm.b.tensor.type.sizes, strict=True):
        first = substitute(place, {axis.name: 0 for axis in axes})
        moves = [coefficient(place, axis) for axis in axes]
        if not isinstance(first, int) or None in moves:
            return None
        known = [move for move in moves if move is not None]
        ends = [move * (extent_of(axis) - 1) for move, axis in zip(known, axes, strict=True)]
        least = first + sum(end for end in ends if end < 0)
        most = first + sum(end for end in ends if end > 0)
        if least < 0 or most >= extent:
            return None
        index += [first, *known]
    batch, columns, depths = (tuple(extent_of(axis) for axis in run.axes) for run in runs)
    fill = (gemm.columns.step, gemm.depth.step)
    return MatrixPack(batch, columns, depths, fill, tuple(index), width, height, chunk)

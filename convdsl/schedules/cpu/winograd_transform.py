"""The transforms of forms as loops over the lines of a tile, in vectors.

Transforms run along one axis of the tile and then along the other, in loops over its lines, with
what lies between in memory of a few vectors: their code is short, and what they load and store
again stays in the first-level cache.
"""

from __future__ import annotations

from collections.abc import Callable

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Buffer, Value
from convdsl.schedules.steps import Steps, transformed
from convdsl.tensor import Dim
from convdsl.tensor.records import record


@record
class Transform:
    """M x N^T of vectors: M along the first axis of a tile, N along the second; M x where a tile
    has one axis. `between` holds what lies between."""

    b: Builder
    matrices: tuple[Steps, ...]
    between: Buffer
    unrolled: bool = False

    def emit(
        self,
        given: Callable[[Dim, Dim], Value],
        made: Callable[[Dim, int, Value], None],
        lines: Dim | None = None,
    ) -> None:
        """Call made(i, j, value) for all results of x[i, j] = given(i, j). Of two axes i is a
        loop's, and there are only the first `lines` of it, if that is said; of one axis it is 0."""
        b, lanes = self.b, self.b.lanes
        if self.unrolled:
            self._at_once(given, made)
            return
        if len(self.matrices) == 1:
            values = [b.let(given(0, j), "d") for j in range(self.matrices[0].inputs)]
            for j, value in enumerate(transformed(b, self.matrices[0], values)):
                made(0, j, value)
            return
        first, second = self.matrices
        height, width = first.inputs, second.inputs
        with b.serial("j", width) as j:
            column = [b.let(given(i, j), "d") for i in range(height)]
            for i, value in enumerate(transformed(b, first, column)):
                b.store(self.between, (i * width + j) * lanes, value)
        with b.serial("i", len(first.results) if lines is None else lines) as i:
            row = [b.load(self.between, (i * width + j) * lanes) for j in range(width)]
            for j, value in enumerate(transformed(b, second, row)):
                made(i, j, value)

    def _at_once(
        self, given: Callable[[Dim, Dim], Value], made: Callable[[Dim, int, Value], None]
    ) -> None:
        """Two axes, all in registers."""
        b, (first, second) = self.b, self.matrices
        columns = [
            [
                b.let(value, "t")
                for value in transformed(
                    b, first, [b.let(given(i, j), "d") for i in range(first.inputs)]
                )
            ]
            for j in range(second.inputs)
        ]
        for i in range(len(first.results)):
            for j, value in enumerate(transformed(b, second, [column[i] for column in columns])):
                made(i, j, value)

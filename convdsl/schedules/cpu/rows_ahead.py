"""Lines that the passes over a row ask for ahead of need.

The first pass over a row waits for what it reads, the last one for the lines that it writes, and
what lies between computes in the cache and waits for nothing. So the pass behind the first asks for
what the first one will read of the next rows, and, where another one follows, for the lines that
the last one is about to write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TypeAlias

from convdsl.kernel.builder import Builder
from convdsl.kernel.expr import Read
from convdsl.kernel.target import Target
from convdsl.schedules.cpu.sweeps import LINE_BYTES
from convdsl.schedules.emission import View
from convdsl.schedules.joins import Join, Part
from convdsl.schedules.task import Output
from convdsl.tensor import Dim, TensorType, substitute
from convdsl.tensor.records import record

Place: TypeAlias = "Mapping[int, Dim]"


@record
class Ahead:
    """What is read of rows to come, and what is written of this one: each as large as the whole
    space, and larger than the second-level cache."""

    reads: tuple[tuple[Part, Read], ...]
    outputs: tuple[tuple[Part, Output], ...]

    @staticmethod
    def of(join: Join, first: Sequence[Part], last: Sequence[Part], target: Target) -> Ahead:
        """By the parts of the first pass and of the last one."""
        made = {stage.target.name for part in join.parts for stage in part.task.stages}
        reads: dict[str, tuple[Part, Read]] = {}
        for part in first:
            for read in part.task.reads:
                name = read.tensor.name
                if name not in made and _is_afar(read.tensor.type, join, target):
                    reads.setdefault(name, (part, read))
        outputs = [
            (part, output)
            for part in last
            for output in part.task.outputs
            if part.totals is None and _is_afar(output.var.type, join, target)
        ]
        return Ahead(tuple(reads.values()), tuple(outputs))

    def ask_for_outputs(
        self, b: Builder, views: Mapping[str, View], here: Place, count: int
    ) -> None:
        """The lines of `count` elements from a place on that will be written."""
        for part, output in self.outputs:
            view = views[output.var.name]
            _ask(b, view, output.offset(part.at(here), part.task.axes), count, 1)

    def ask_for_rows(self, b: Builder, views: Mapping[str, View], there: Place, count: int) -> None:
        """Those that will be read from a place on; the last rows ask for what is not there, which
        does nothing."""
        for part, read in self.reads:
            view, at = views[read.tensor.name], part.at(there)
            where = view.layout.offset([substitute(d, at) for d in read.index])
            _ask(b, view, where, count, 2)


def _is_afar(type: TensorType, join: Join, target: Target) -> bool:
    elements = prod(type.sizes)
    return elements == prod(join.shape) and elements * type.dtype.bytes > target.caches.l2_bytes


def _ask(b: Builder, view: View, where: Dim, count: int, level: int) -> None:
    for element in range(0, count, LINE_BYTES // view.buffer.dtype.bytes):
        b.prefetch(view.buffer, where + element, level=level)

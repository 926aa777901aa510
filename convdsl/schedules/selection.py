"""Finds tasks that select: ranks along an axis, who has the first ones, and what is read there.

    rank[.., i, ..]  = how many come before x[.., i, ..]
    place[.., j, ..] = the i of rank j < k          (stored, or read by what follows)
    y[.., j, ..]     = f(x[.., place[.., j, ..], ..], ...)

Whoever sorts, or selects the first k, needs no ranks.
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.kernel.expr import Axis, IndexValue, Read, reads
from convdsl.kernel.nodes import Value
from convdsl.kernel.ranks import Ranks, match_ranks
from convdsl.kernel.scatter import match_scatter
from convdsl.schedules.chain import emit_stages, store_outputs
from convdsl.schedules.emission import Emitter, extent_of, lane_symbol
from convdsl.schedules.task import Output, Task
from convdsl.tensor import Dim, DType
from convdsl.tensor.records import record


@record
class Selection:
    """The first `wanted` of `ranks` along dimension `dim` of a space; `axes` are those of the value
    that is ranked. `places` says where they are; `after`, if anything, what follows."""

    ranks: Ranks
    axes: tuple[Axis, ...]
    dim: int
    places: Task
    after: Task | None

    @property
    def extent(self) -> int:
        return extent_of(self.axes[self.dim])

    @property
    def wanted(self) -> int:
        return extent_of(self.places.axes[self.dim])

    @property
    def kept(self) -> tuple[int, ...]:
        """The other dimensions."""
        return tuple(d for d in range(len(self.axes)) if d != self.dim)

    @property
    def name(self) -> str:
        """Of the tensor of places."""
        return self.places.stages[0].target.name

    @property
    def leaving(self) -> tuple[Task, ...]:
        """The tasks whose values leave."""
        return (self.places,) if self.after is None else (self.places, self.after)

    @property
    def outputs(self) -> tuple[Output, ...]:
        return tuple(output for task in self.leaving for output in task.outputs)

    @property
    def bits(self) -> int:
        """That say where a value stands among all others of its type, 32 or 64."""
        value = self.ranks.value
        stored = {read.dtype for read in reads(value)}
        narrow = value.dtype is DType.I64 and all(
            dtype.is_integer and dtype.bytes <= 4 and dtype.kind is value.dtype.kind
            for dtype in stored
        )
        return 32 if value.dtype in (DType.F32, DType.U32) or narrow else 64


def match_selection(task: Task) -> Selection | None:
    """A task and its earlier ones as a selection, or None."""
    tasks = (*task.earlier, task)
    if not 2 <= len(tasks) <= 3 or any(t.ending is not None for t in tasks):
        return None
    ranking, places, *rest = tasks
    if len(ranking.stages) != 1 or len(places.stages) != 1 or ranking.outputs:
        return None
    (stage,), (made,) = ranking.stages, places.stages
    ranked, found = match_ranks(stage), match_scatter(made.body)
    if ranked is None or found is None or found.op != "sum" or len(found.axes) != 1:
        return None
    (term,), dim = found.axes, stage.axes.index(ranked.axis)
    along = [term.i if d == dim else axis.i for d, axis in enumerate(places.axes)]
    index = found.index
    if len(along) != len(stage.axes) or index != Read(stage.target, tuple(along)):
        return None
    if found.place != places.axes[dim].name or found.value != IndexValue(term.i, DType.I64):
        return None
    (after,) = rest or (None,)
    if after is not None and not _follows(after, places, stage.target.name):
        return None
    return Selection(ranked, stage.axes, dim, places, after)


def _follows(task: Task, places: Task, ranking: str) -> bool:
    """Whether a task reads the places where it stands, and nothing of the ranking."""
    own = tuple(axis.i for axis in task.axes)
    if task.reducing or tuple(map(extent_of, task.axes)) != tuple(map(extent_of, places.axes)):
        return False
    found = [read for stage in task.stages for read in reads(stage.body)]
    made = [r for r in found if r.tensor.name == places.stages[0].target.name]
    return all(r.index == own for r in made) and all(r.tensor.name != ranking for r in found)


def placed(axes: tuple[Axis, ...], place: Mapping[int, Dim]) -> dict[str, Dim]:
    """Where axes stand at a place of the space that all of a selection stand on."""
    return {axis.name: place[d] for d, axis in enumerate(axes)}


def put(
    emitter: Emitter,
    selection: Selection,
    first: Mapping[int, Dim],
    dim: int,
    position: Value,
) -> None:
    """What belongs to a place in the order: where it was found, and what follows from that. Lanes
    of the position belong to places along `dim`, from the `first` on."""
    lane = lane_symbol(emitter.lanes)
    place = {d: index + lane if d == dim else index for d, index in first.items()}
    found = {selection.name: position}
    emitter = emitter.holding(found)
    made = [
        emit_stages(emitter, task.stages, task.outputs, placed(task.axes, place))
        for task in selection.leaving[1:]
    ]
    for task, held in zip(selection.leaving, (found, *made), strict=True):
        at = placed(task.axes, first)
        store_outputs(emitter, task.outputs, task.axes, held, at, emitter.valid)

"""Receptive fields: which interval of a model input one output position depends on.

Intervals are propagated exactly through windows, branches, transposed layers, resizing and
regrouping, per model input and per axis of space, in coordinates of the input extended
without end (what is padded has coordinates too). Along one axis the field of position o is

    lo, hi of phases[o mod T], both + (o div T) * advance

Araujo, Norris, Sim 2019, "Computing Receptive Fields of Convolutional Neural Networks":
size = hi - lo + 1, effective stride = advance / T, effective padding = -lo of position 0;
paths are aligned where they agree in stride and centre.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, partial
from itertools import product
from math import lcm, prod
from typing import TypeAlias

from convdsl.analysis.access import (
    Access,
    Place,
    Span,
    channels_read,
    places,
    read_access,
    window_access,
)
from convdsl.analysis.fields import Field, Interval, Path, UnavailableError, compose, union
from convdsl.analysis.tables import Table, through_reads, united, written_out
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.opdef import Reach, Role, WindowRule
from convdsl.ir.rules import Answers, arithmetic_of, numbered
from convdsl.kernel.expr import Axis, Stage, TensorExpr
from convdsl.tensor import Dim, Window, dim_max, dim_min
from convdsl.tensor.records import record

MOST_POSITIONS = 2**16


@record
class AxisField:
    """What is reported for one axis. `size` is the largest over all positions."""

    size: Dim
    smallest: Dim
    stride: Fraction | None  # None where no axis is left to step along, or paths disagree
    padding: Dim | None
    aligned: bool


Key: TypeAlias = "tuple[str, int]"  # model input, axis of it
Known: TypeAlias = "Field | Table"
Seen: TypeAlias = "dict[Key, Known | None]"  # None: unavailable; no key: not seen at all
Summary: TypeAlias = "dict[str, tuple[AxisField | None, ...]]"


def propagate(graph: Graph, numbers: Sequence[int] | None = None) -> dict[Value, Seen]:
    """For every input and operator output: its field in each model input, per axis of space.
    `numbers`: of the operators' calls, where known."""
    seen: dict[Value, Seen] = {}
    for name, value in graph.inputs.items():
        here = (Interval(0, 0),)
        seen[value] = {
            (name, axis): Field((Path(axis, 1, here),)) for axis in range(2, value.type.rank)
        }
    known: Answers[_Steps] = Answers()
    nodes = graph.op_nodes()
    numbers = numbers or numbered(node.call for node in nodes)
    for node, number in zip(nodes, numbers, strict=True):
        steps = known.of(number, partial(_Steps, node))
        seen |= zip(node.outputs, _through(steps, node.inputs, seen), strict=True)
    return seen


def receptive_fields(graph: Graph, numbers: Sequence[int] | None = None) -> dict[Value, Summary]:
    """What is reported of every input and operator output."""
    axes = {name: range(2, source.type.rank) for name, source in graph.inputs.items()}
    known: dict[tuple[int, ...], Summary] = {}  # what goes element by element sees what it reads
    found: dict[Value, Summary] = {}
    seen_of = propagate(graph, numbers)  # keeps all fields, so that their ids are their own
    for value, seen in seen_of.items():
        key = (id(value.type), *[id(field) for field in seen.values()])
        if key not in known or len(seen) < sum(map(len, axes.values())):
            known[key] = _summary(axes, value, seen)
        found[value] = known[key]
    return found


def field_of_last_map(graph: Graph) -> Summary:
    """What is reported of a network as a whole: the field of the map that lies nearest to its first
    output. A map has an axis of space with several positions: pooled to one, or flattened, a value
    sees what the whole map does, and steps nowhere. Without a map it is the output's own."""
    output = next(iter(graph.outputs.values()))
    waiting = [output]
    for value in waiting:
        if any(extent != 1 for extent in value.type.shape[2:]):
            break
        if isinstance(value.node, OpNode):
            waiting += [v for v in value.node.data_inputs if v not in waiting]
    else:
        value = output
    axes = {name: range(2, source.type.rank) for name, source in graph.inputs.items()}
    return _summary(axes, value, propagate(graph)[value])


def _summary(axes: Mapping[str, range], value: Value, seen: Seen) -> Summary:
    """What is reported of one value, by model input and its `axes`."""
    shape = value.type.shape
    return {
        name: tuple([_summarise(seen.get((name, axis), _NOTHING), shape) for axis in own])
        for name, own in axes.items()
    }


_NOTHING = Field(())


class _Steps:
    """An operator, its expression made once: the operands' names stand for as many reads as it has.
    Nodes of equal calls share it."""

    def __init__(self, node: OpNode) -> None:
        self.call = node.call
        self.names = self.call.output_names
        self.types = {value.type for value in node.outputs}
        self.data = {operand.name for operand in node.op.operands if operand.role is Role.DATA}

    @cached_property
    def window(self) -> WindowRule:
        return self.call.op.window(self.call)

    @cached_property
    def passes_on(self) -> bool:
        """Whether every output sees what the only data sees, along axes of space."""
        alone = [self.call.type(name) for name in self.data if name in self.call.types]
        return self.window is Reach.POINTWISE and len(alone) == 1 and self.types == {*alone}

    @cached_property
    def accesses(self) -> dict[int, Access]:
        """What the window reads, by axis."""
        window = self.window
        assert isinstance(window, Window)
        return {number + 2: window_access(window, number) for number in range(window.rank)}

    @cached_property
    def kernel(self) -> TensorExpr:
        return arithmetic_of(self.call)

    @cached_property
    def readers(self) -> dict[str, list[tuple[Stage, Place]]]:
        """The reads of a tensor, by its name, in the order of stages."""
        found: dict[str, list[tuple[Stage, Place]]] = {}
        stages = self.kernel.stages
        for stage in stages:
            for place in places(stage, stages):
                found.setdefault(place.read.tensor.name, []).append((stage, place))
        return found

    def mixed(self, operand: str, paths: Iterable[Path]) -> Iterator[Path]:
        """The paths, none of all channels together where the node sums over those."""
        for path in paths:
            if path.gathered:
                found = (_channel(path, p, s.axes) for s, p in self.readers.get(operand, ()))
                path = next(found, path)
            yield path

    def known(self, operand: str, axis: int, field: Known) -> Mapping[str, Known]:
        """The fields of the outputs in axis `axis` of a model input, by way of one operand alone.
        Outputs that do not read it have none. What no paths say is written out."""
        if isinstance(field, Field):
            try:
                return self.fields(operand, axis, field)
            except UnavailableError:
                field = written_out(field, self.call.type(operand).shape)
        return self.tables(operand, field)

    def tables(self, operand: str, table: Table) -> dict[str, Table]:
        """The same, element by element."""
        same = self.window is Reach.POINTWISE and self.types == {self.call.type(operand)}
        if same and table.lo.ndim > 1 and table.lo.shape[1] == 1:  # channels are mixed at most
            return dict.fromkeys(self.names, table)
        reached = {operand: table}
        for name in (operand, *(stage.target.name for stage in self.kernel.stages)):
            if name not in reached:
                continue
            by_stage: dict[str, tuple[Stage, list[Place]]] = {}
            for stage, place in self.readers.get(name, ()):
                by_stage.setdefault(stage.target.name, (stage, []))[1].append(place)
            for target, (stage, found) in by_stage.items():
                before = reached.get(target)
                reached[target] = through_reads(reached[name], found, stage.axes, before)
        return {name: reached[name] for name in self.names if name in reached}

    def fields(self, operand: str, axis: int, field: Field) -> dict[str, Field]:
        """By paths. Raises UnavailableError."""
        spatial = all(path.axis is None or path.axis >= 2 for path in field.paths)
        if self.window is Reach.POINTWISE and spatial and self.types == {self.call.type(operand)}:
            return dict.fromkeys(self.names, field)
        if isinstance(self.window, Window) and spatial and operand in self.data:
            paths = [
                path if path.axis is None else compose(path, self.accesses[path.axis])
                for path in self.mixed(operand, field.paths)
            ]
            return dict.fromkeys(self.names, Field(union(paths), field.aligned))
        reached: dict[str, list[Path]] = {operand: list(field.paths)}
        for name in (operand, *(stage.target.name for stage in self.kernel.stages)):
            if name not in reached:
                continue
            paths = union(reached[name])
            for stage, place in self.readers.get(name, ()):
                found = reached.setdefault(stage.target.name, [])
                found += _through_reads(paths, place, stage, axis)
        return {
            name: Field(union(reached[name]), field.aligned)
            for name in self.names
            if name in reached
        }


def _through(steps: _Steps, inputs: Mapping[str, Value], seen: Mapping[Value, Seen]) -> list[Seen]:
    """The fields of each output from those of the operands."""
    read = [seen[value] for value in inputs.values() if value in seen]
    if steps.passes_on and len(read) == 1 and all(map(_moves_in_space, read[0].values())):
        return read * len(steps.names)
    found: dict[str, dict[Key, list[Known | None]]] = {name: {} for name in steps.names}
    for operand, value in inputs.items():
        for key, field in seen.get(value, {}).items():
            try:
                after = None if field is None else steps.known(operand, key[1], field)
            except UnavailableError:
                after = None
            for name in steps.names if after is None else after:
                new = None if after is None else after[name]
                if not isinstance(new, Field) or new.paths:
                    found[name].setdefault(key, []).append(new)
    shapes = dict(zip(steps.names, (t.shape for t in steps.call.outputs), strict=True))
    return [
        {key: _join(fields, shapes[name]) for key, fields in found[name].items()}
        for name in steps.names
    ]


def _moves_in_space(field: Known | None) -> bool:
    """Whether paths say it, all of them along axes of space."""
    return (
        isinstance(field, Field)
        and bool(field.paths)
        and all(path.axis is None or path.axis >= 2 for path in field.paths)
    )


def _through_reads(paths: Sequence[Path], place: Place, stage: Stage, axis: int) -> Iterator[Path]:
    """All that is seen by way of a read. Where one axis becomes several nothing more is known of a
    path along it: it may be left out if everything that it sees is seen from everywhere."""
    for path in paths:
        try:
            yield _through_read(path, place, stage, axis)
        except UnavailableError:
            extent = None if path.axis is None else place.read.tensor.type.shape[path.axis]
            if not any(_covers(other, path, extent) for other in paths if other.axis is None):
                raise


def _covers(whole: Path, path: Path, extent: Dim | None) -> bool:
    """Whether a field that is the same everywhere holds another one's, at so many positions."""
    (everything,) = whole.phases if len(whole.phases) == 1 else (None,)
    if everything is None or not isinstance(extent, int) or extent > MOST_POSITIONS:
        return False
    hulls = (path.at(position) for position in range(extent))
    return all(hull is None or everything.hull(hull) == everything for hull in hulls)


def _channel(path: Path, place: Place, axes: tuple[Axis, ...]) -> Path:
    """The path as a read of channels has it: of one alone little is known, of a sum over all what
    they see together. Channels that become space again are beyond what is kept."""
    if not path.gathered:
        return path
    said = channels_read(place, axes)
    if said == {None}:
        return replace(path, gathered=False)
    if said <= {1, None}:
        return path
    raise UnavailableError


def _through_read(path: Path, place: Place, stage: Stage, axis: int) -> Path:
    path = _channel(path, place, stage.axes)
    if path.axis is not None:
        access = read_access(place, path.axis, stage.axes)
        if access is None or (access.gathered and not _keeps_channels(path, place, stage)):
            raise UnavailableError
        if _depends_elsewhere(place, stage, access.axis):
            raise UnavailableError
        return compose(path, access)
    # Seen alike from everywhere, but for positions that read nothing at all.
    here = axis < min(len(stage.axes), place.read.tensor.type.rank)
    access = read_access(place, axis, stage.axes) if here else None
    if _depends_elsewhere(place, stage, None if access is None else access.axis):
        raise UnavailableError
    if access is not None and any(not isinstance(t, Span) and not t for t in access.phases):
        (interval,) = path.phases
        seen = (interval if isinstance(t, Span) or t else None for t in access.phases)
        return Path(access.axis, 0, tuple(seen), path.gathered)
    return path


def _depends_elsewhere(place: Place, stage: Stage, axis: int | None) -> bool:
    """Whether positions along another axis of space than this say if anything is read. Conditions
    on taps as well leave some of them: the ends of windows that differ in length."""
    others = {a.name for number, a in enumerate(stage.axes) if number >= 2 and number != axis}
    taps = {a.name for a in place.reduced}
    said = (guard.names() for guard in place.guards if not guard.soft)
    return any(names & others and not names & taps for names in said)


def _keeps_channels(path: Path, place: Place, stage: Stage) -> bool:
    """Whether axis 1 is one of channels before and after, as far as ranks tell."""
    return path.axis != 1 and place.read.tensor.type.rank == len(stage.axes)


def _join(fields: Sequence[Known | None], shape: tuple[Dim, ...]) -> Known | None:
    """The field of what depends on several operands at once, a value of this shape."""
    if len(fields) == 1:
        return fields[0]
    known = [field for field in fields if field is not None]
    if len(known) < len(fields):
        return None
    moving = [field for field in known if isinstance(field, Field)]
    try:
        if len(moving) == len(known):
            return _joined(moving)
    except UnavailableError:
        pass
    try:
        tables = [f if isinstance(f, Table) else written_out(f, shape) for f in known]
    except UnavailableError:
        return None
    return united(tables)


def _joined(fields: Sequence[Field]) -> Field:
    paths = union(path for field in fields for path in field.paths)
    aligned = all(field.aligned for field in fields) and _same_centres(fields)
    return Field(paths, aligned)


def _same_centres(fields: Sequence[Field]) -> bool:
    if any(len(field.paths) != 1 for field in fields):
        return False
    first, *others = (field.paths[0] for field in fields)
    return all(_is_concentric(first, other) for other in others)


def _is_concentric(a: Path, b: Path) -> bool:
    if a.axis != b.axis or a.advance * len(b.phases) != b.advance * len(a.phases):
        return False
    for position in range(lcm(len(a.phases), len(b.phases))):
        first, second = a.at(position), b.at(position)
        if first is None or second is None:
            if first is not second:
                return False
        elif first.lo + first.hi != second.lo + second.hi:
            return False
    return True


def _summarise(field: Known | None, shape: tuple[Dim, ...]) -> AxisField | None:
    """The reported figures of a value of this shape, or None where they are unavailable."""
    if field is None:
        return None
    if isinstance(field, Table):
        spans, first = field.sizes(), field.first()
        padding = None if first is None else -first.lo
        return AxisField(int(spans.max()), int(spans.min()), field.stride(), padding, field.aligned)
    if not field.paths:
        return AxisField(0, 0, None, None, True)
    if len(field.paths) == 1:
        (path,) = field.paths
        extent = 1 if path.axis is None else shape[path.axis]
        count = min(len(path.phases), extent) if isinstance(extent, int) else len(path.phases)
        intervals = list(path.phases[:count])
        stride = path.rate or None
    else:
        intervals, stride = _everywhere(field.paths, shape), None
    if not intervals:
        return None
    sizes: list[Dim] = [0 if i is None else i.hi - i.lo + 1 for i in intervals]
    first = intervals[0]
    padding = None if first is None else -first.lo
    most, least = (dim_max(*sizes), dim_min(*sizes)) if len(sizes) > 1 else sizes * 2
    return AxisField(most, least, stride, padding, field.aligned)


def _everywhere(paths: Sequence[Path], shape: tuple[Dim, ...]) -> list[Interval | None]:
    """The field at every position, where paths move differently; empty if sizes are unknown."""
    axes = sorted({path.axis for path in paths if path.axis is not None})
    extents = [shape[axis] for axis in axes]
    known = [extent for extent in extents if isinstance(extent, int)]
    if len(known) < len(extents) or prod(known) > MOST_POSITIONS:
        return []
    field = Field(tuple(paths))
    return [
        field.at(dict(zip(axes, positions, strict=True)))
        for positions in product(*(range(extent) for extent in known))
    ]

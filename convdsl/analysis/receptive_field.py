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
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import product
from math import gcd, lcm, prod
from typing import TypeAlias

from convdsl.analysis.access import Access, Place, Span, Taps, places, read_access, window_access
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.opdef import Reach, Role, WindowRule
from convdsl.kernel.expr import Stage, TensorExpr
from convdsl.tensor import Dim, Window, dim_max, dim_min

LONGEST_PERIOD = 2**14
MOST_POSITIONS = 2**16


@dataclass(frozen=True, slots=True)
class Interval:
    """Positions lo..hi."""

    lo: Dim
    hi: Dim

    def shifted(self, by: Dim) -> Interval:
        return Interval(self.lo + by, self.hi + by)

    def hull(self, other: Interval) -> Interval:
        return Interval(_least(self.lo, other.lo), _greatest(self.hi, other.hi))


def _least(a: Dim, b: Dim) -> Dim:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else dim_min(a, b)


def _greatest(a: Dim, b: Dim) -> Dim:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else dim_max(a, b)


@dataclass(frozen=True, slots=True)
class Path:
    """A field that moves along one axis of the value (None: is the same everywhere).

    A phase of None sees nothing: the holes of a transposed convolution.
    """

    axis: int | None
    advance: int
    phases: tuple[Interval | None, ...]

    @property
    def rate(self) -> Fraction:
        return Fraction(self.advance, len(self.phases))

    def at(self, position: int) -> Interval | None:
        turns, phase = divmod(position, len(self.phases))
        interval = self.phases[phase]
        return interval and interval.shifted(turns * self.advance)


@dataclass(frozen=True, slots=True)
class Field:
    """The union of paths that move differently; `aligned` as the module says."""

    paths: tuple[Path, ...]
    aligned: bool = True

    def at(self, positions: Mapping[int, int]) -> Interval | None:
        """What the value's element at `positions` (by axis) sees; None for nothing."""
        hull: Interval | None = None
        for path in self.paths:
            interval = path.at(0 if path.axis is None else positions[path.axis])
            if interval is not None:
                hull = interval if hull is None else hull.hull(interval)
        return hull


@dataclass(frozen=True, slots=True)
class AxisField:
    """What is reported for one axis. `size` is the largest over all positions."""

    size: Dim
    smallest: Dim
    stride: Fraction | None  # None where no axis is left to step along, or paths disagree
    padding: Dim | None
    aligned: bool


Key: TypeAlias = "tuple[str, int]"  # model input, axis of it
Seen: TypeAlias = "dict[Key, Field | None]"  # None: unavailable; no key: not seen at all
Summary: TypeAlias = "dict[str, tuple[AxisField | None, ...]]"


class _UnavailableError(Exception):
    """No exact field is known."""


def propagate(graph: Graph) -> dict[Value, Seen]:
    """For every input and operator output: its field in each model input, per axis of space."""
    seen: dict[Value, Seen] = {}
    for name, value in graph.inputs.items():
        here = (Interval(0, 0),)
        seen[value] = {
            (name, axis): Field((Path(axis, 1, here),)) for axis in range(2, value.type.rank)
        }
    for node in graph.op_nodes():
        seen |= zip(node.outputs, _through(_Steps(node), seen), strict=True)
    return seen


def receptive_fields(graph: Graph) -> dict[Value, Summary]:
    """What is reported of every input and operator output."""
    inputs = graph.inputs
    return {
        value: {
            name: tuple(
                _summarise(fields.get((name, axis), Field(())), value.type.shape)
                for axis in range(2, source.type.rank)
            )
            for name, source in inputs.items()
        }
        for value, fields in propagate(graph).items()
    }


def field_of_last_map(graph: Graph) -> Summary:
    """What is reported of a network as a whole: the field of the map that lies nearest to its first
    output. A map has an axis of space with several positions: pooled to one, or flattened, a value
    sees what the whole map does, and steps nowhere. Without a map it is the output's own."""
    output = next(iter(graph.outputs.values()))
    waiting = [output]
    for value in waiting:
        if any(extent != 1 for extent in value.type.shape[2:]):
            return receptive_fields(graph)[value]
        if isinstance(value.node, OpNode):
            waiting += [v for v in value.node.data_inputs if v not in waiting]
    return receptive_fields(graph)[output]


class _Steps:
    """A node, its expression made once: the operands' names stand for as many reads as it has."""

    def __init__(self, node: OpNode) -> None:
        self.node = node
        self.call = node.call
        self.names = self.call.output_names
        self.types = {value.type for value in node.outputs}
        self.data = {operand.name for operand in node.op.operands if operand.role is Role.DATA}

    @cached_property
    def window(self) -> WindowRule:
        return self.node.op.window(self.call)

    @cached_property
    def accesses(self) -> dict[int, Access]:
        """What the window reads, by axis."""
        window = self.window
        assert isinstance(window, Window)
        return {number + 2: window_access(window, number) for number in range(window.rank)}

    @cached_property
    def kernel(self) -> TensorExpr:
        return self.call.kernel

    @cached_property
    def readers(self) -> dict[str, list[tuple[Stage, Place]]]:
        """The reads of a tensor, by its name, in the order of stages."""
        found: dict[str, list[tuple[Stage, Place]]] = {}
        stages = self.kernel.stages
        for stage in stages:
            for place in places(stage, stages):
                found.setdefault(place.read.tensor.name, []).append((stage, place))
        return found

    def fields(self, operand: str, axis: int, field: Field) -> dict[str, Field]:
        """The fields of the outputs in axis `axis` of a model input, by way of one operand alone.
        Outputs that do not read it have none."""
        spatial = all(path.axis is None or path.axis >= 2 for path in field.paths)
        if self.window is Reach.POINTWISE and spatial and self.types == {self.call.type(operand)}:
            return dict.fromkeys(self.names, field)
        if isinstance(self.window, Window) and spatial and operand in self.data:
            paths = [
                path if path.axis is None else _compose(path, self.accesses[path.axis])
                for path in field.paths
            ]
            return dict.fromkeys(self.names, Field(_union(paths), field.aligned))
        reached: dict[str, list[Path]] = {operand: list(field.paths)}
        for name in (operand, *(stage.target.name for stage in self.kernel.stages)):
            if name not in reached:
                continue
            paths = _union(reached[name])
            for stage, place in self.readers.get(name, ()):
                found = reached.setdefault(stage.target.name, [])
                found += _through_reads(paths, place, stage, axis)
        return {
            name: Field(_union(reached[name]), field.aligned)
            for name in self.names
            if name in reached
        }


def _through(steps: _Steps, seen: Mapping[Value, Seen]) -> list[Seen]:
    """The fields of each output from those of the operands."""
    found: dict[str, dict[Key, list[Field | None]]] = {name: {} for name in steps.names}
    for operand, value in steps.node.inputs.items():
        for key, field in seen.get(value, {}).items():
            try:
                after = None if field is None else steps.fields(operand, key[1], field)
            except _UnavailableError:
                after = None
            for name in steps.names if after is None else after:
                new = None if after is None else after[name]
                if new is None or new.paths:
                    found[name].setdefault(key, []).append(new)
    return [{key: _join(fields) for key, fields in found[name].items()} for name in steps.names]


def _through_reads(paths: Sequence[Path], place: Place, stage: Stage, axis: int) -> Iterator[Path]:
    """All that is seen by way of a read. Where one axis becomes several nothing more is known of a
    path along it: it may be left out if everything that it sees is seen from everywhere."""
    for path in paths:
        try:
            yield _through_read(path, place, stage, axis)
        except _UnavailableError:
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


def _through_read(path: Path, place: Place, stage: Stage, axis: int) -> Path:
    if path.axis is not None:
        access = read_access(place, path.axis, stage.axes)
        if access is None:
            raise _UnavailableError
        return _compose(path, access)
    # Seen alike from everywhere, but for positions that read nothing at all.
    if axis < place.read.tensor.type.rank:
        access = read_access(place, axis, stage.axes)
        if access is not None and any(not isinstance(t, Span) and not t for t in access.phases):
            (interval,) = path.phases
            seen = (interval if isinstance(t, Span) or t else None for t in access.phases)
            return Path(access.axis, 0, tuple(seen))
    return path


def _compose(path: Path, access: Access) -> Path:
    """The field of what an access reads from a value whose field is `path`."""
    period = len(path.phases)
    turns = period // gcd(period, access.advance)
    length = len(access.phases) * turns
    if length > LONGEST_PERIOD:
        raise _UnavailableError
    phases: list[Interval | None] = []
    for position in range(length):
        turn, phase = divmod(position, len(access.phases))
        phases.append(_hull(path, access.phases[phase], turn * access.advance))
    advance = path.advance * (access.advance * turns // period)
    return _shortest(Path(access.axis, advance, tuple(phases)))


def _hull(path: Path, taps: Taps, shift: int) -> Interval | None:
    """The interval seen through all taps together."""
    if isinstance(taps, Span):
        (interval,) = path.phases if len(path.phases) == 1 else (None,)
        if interval is None:
            raise _UnavailableError
        ends = [interval.shifted(end * path.advance) for end in (taps.first, taps.last)]
        ends = [end.shifted(shift * path.advance) for end in ends]
        low, high = ends if path.advance >= 0 else reversed(ends)
        return Interval(low.lo, high.hi)
    if not taps:
        return None
    period = len(path.phases)
    if period == 1:  # monotone: the ends decide
        taps = (taps[0], taps[-1])
    elif isinstance(taps, range) and len(taps) > 2 * period:  # monotone in every phase
        taps = (*taps[:period], *taps[-period:])
    result: Interval | None = None
    for tap in taps:
        interval = path.at(tap + shift)
        if interval is not None:
            result = interval if result is None else result.hull(interval)
    return result


def _shortest(path: Path) -> Path:
    """The same path with the shortest period."""
    length = len(path.phases)
    for period in range(1, length):
        if length % period or (path.advance * period) % length:
            continue
        advance = path.advance * period // length
        short = Path(path.axis, advance, path.phases[:period])
        if all(short.at(o) == path.phases[o] for o in range(period, length)):
            return short
    return path


def _union(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Paths that move alike become one."""
    merged: dict[tuple[int | None, Fraction], Path] = {}
    for path in paths:
        key = (path.axis, path.rate)
        merged[key] = _merge(merged[key], path) if key in merged else path
    return tuple(merged.values())


def _merge(a: Path, b: Path) -> Path:
    if a == b:
        return a
    length = lcm(len(a.phases), len(b.phases))
    if length > LONGEST_PERIOD:
        raise _UnavailableError
    phases: list[Interval | None] = []
    for position in range(length):
        first, second = a.at(position), b.at(position)
        phases.append(first.hull(second) if first and second else first or second)
    return _shortest(Path(a.axis, a.advance * length // len(a.phases), tuple(phases)))


def _join(fields: Sequence[Field | None]) -> Field | None:
    """The field of what depends on several operands at once."""
    known = [field for field in fields if field is not None]
    if len(known) < len(fields):
        return None
    try:
        paths = _union(path for field in known for path in field.paths)
    except _UnavailableError:
        return None
    aligned = all(field.aligned for field in known) and _same_centres(known)
    return Field(paths, aligned)


def _same_centres(fields: Sequence[Field]) -> bool:
    if len(fields) == 1:
        return True
    if any(len(field.paths) != 1 for field in fields):
        return False
    first, *others = (field.paths[0] for field in fields)
    return all(_is_concentric(first, other) for other in others)


def _is_concentric(a: Path, b: Path) -> bool:
    if (a.axis, a.rate) != (b.axis, b.rate):
        return False
    for position in range(lcm(len(a.phases), len(b.phases))):
        first, second = a.at(position), b.at(position)
        if first is None or second is None:
            if first is not second:
                return False
        elif first.lo + first.hi != second.lo + second.hi:
            return False
    return True


def _summarise(field: Field | None, shape: tuple[Dim, ...]) -> AxisField | None:
    """The reported figures of a value of this shape, or None where they are unavailable."""
    if field is None:
        return None
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
    return AxisField(dim_max(*sizes), dim_min(*sizes), stride, padding, field.aligned)


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

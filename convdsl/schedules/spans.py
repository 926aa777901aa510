"""Lanes that read near each other, put together from a few vectors instead of one by one.

Each vector begins at the first place that those before it do not hold: rows read in steps of two
are two vectors and a shuffle, so are two rows in turn; windows at the border of a map are vectors
some of whose lanes come from a constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Const, Gather, Load, Shuffle, Value
from convdsl.tensor import bounds

_ROWS = 2  # lanes that a vector must have of those that are far from each other, to be worth it


def together(b: Builder, gather: Gather, valid: int | None) -> Value:
    """What a gather gathers, by vectors and shuffles where these are fewer. Lanes from `valid` on
    may hold anything. Nothing is read beyond the first place and the last."""
    wanted = gather.lanes if valid is None else gather.lanes[:valid]
    loads = [lane for lane in wanted if isinstance(lane, Load)]
    others = {lane.value for lane in wanted if isinstance(lane, Const)}
    if any(not isinstance(lane, Load | Const) for lane in wanted) or len(others) > 1:
        return gather
    if not loads:
        return Const(others.pop(), gather.type)
    first, lanes = loads[0], gather.type.lanes
    places: dict[int, int] = {}
    for lane, load in enumerate(wanted):
        if isinstance(load, Load):
            place = load.index - first.index
            if load.guards != first.guards or not isinstance(place, int):
                return gather
            places[lane] = place
    starts = _starts(places.values(), lanes)
    near = max(places.values()) - starts[0] < lanes * len(loads)
    if not near and len(starts) * _ROWS > len(loads):
        return gather
    value, here = _near(b, gather, first, places, starts)
    nothing = {n: n for n, lane in enumerate(wanted) if isinstance(lane, Const)}
    if nothing:
        other = Const(others.pop(), gather.type)
        return _joined(value, here, other, nothing)
    if all(lane == at for lane, at in here.items()):
        return value
    value = b.let(value, first.buffer.name)
    return _joined(value, here, value, {})


def _starts(places: Iterable[int], lanes: int) -> list[int]:
    """Where vectors that hold all places begin."""
    starts: list[int] = []
    for place in sorted(places):
        if not starts or place >= starts[-1] + lanes:
            starts.append(place)
    return starts


def _near(
    b: Builder, gather: Gather, first: Load, places: Mapping[int, int], starts: Sequence[int]
) -> tuple[Value, dict[int, int]]:
    """A vector, and by lane the lane of it that holds what is read there."""
    high = max(places.values())
    type, lanes = gather.type, gather.type.lanes
    value: Value | None = None
    here: dict[int, int] = {}
    for start in starts:
        index = first.index + start
        _, last = bounds(index)
        whole = start + lanes <= high + 1 or (
            last is not None and last + lanes <= first.buffer.size
        )
        valid = None if whole else high + 1 - start
        part = Load(first.buffer, index, type, first.guards, first.otherwise, valid)
        found = {n: place - start for n, place in places.items() if 0 <= place - start < lanes}
        if value is None:
            value, here = part, found
        else:
            value = b.let(_joined(value, here, part, found), first.buffer.name)
            here = {lane: lane for lane in (*here, *found)}
    assert value is not None
    return value, here


def _joined(a: Value, of_a: Mapping[int, int], b: Value, of_b: Mapping[int, int]) -> Shuffle:
    """Lanes of the one and lanes of the other; what nobody asks for comes from anywhere."""
    lanes = a.type.lanes
    chosen = {**of_a, **{lane: lanes + at for lane, at in of_b.items()}}
    return Shuffle(a, b, tuple(chosen.get(lane, lane) for lane in range(lanes)))

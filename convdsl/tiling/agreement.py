"""Where a network on a tile computes what it would on the whole image.

Both graphs are of one network, for two extents of one axis. A tile begins at `offset`; then element
q of a tensor of the tile stands for element q + shift of the whole tensor,

    shift = offset * (whole extent - tile extent) / (image extent - tile's)

and it agrees if everything that its arithmetic reads there agrees: the same elements, which agree
themselves, or padding in both; the same numbers made of indices; the same conditions. So borders
of the image need no rule of their own, and nothing is assumed of any operator: what depends on
sizes, or on all positions, agrees nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.kernel.expr import (
    Axis,
    Binary,
    Cast,
    Compare,
    Expr,
    IndexCompare,
    IndexValue,
    Literal,
    Pick,
    Read,
    Reduce,
    Select,
    Stage,
    Unary,
    children,
)
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, TensorType, evaluate, substitute, symbols_of

Array: TypeAlias = "npt.NDArray[Any]"
Bindings: TypeAlias = "Mapping[str, Array]"

LARGEST_GRID = 1 << 24
"""Positions that are compared at once."""


@dataclass(frozen=True, slots=True)
class Track:
    """How a tensor of the tile stands to the whole one.

    axis: the one along which they differ in extent; None where they do not. step: elements a
    pixel. agrees: [tiles, extent] (extent 1 where there is no axis).
    """

    axis: int | None
    step: Fraction
    agrees: Array

    @property
    def nowhere(self) -> bool:
        return not self.agrees.any()


@dataclass(frozen=True, slots=True)
class Along:
    """One axis of one input: the extents of tile and image, and where tiles begin."""

    input: str
    axis: int
    tile: int
    image: int
    offsets: Array

    def step(self, tile: Dim, whole: Dim) -> Fraction:
        """Elements a pixel of an axis of these extents."""
        assert isinstance(tile, int)
        assert isinstance(whole, int)
        return Fraction(whole - tile, self.image - self.tile)

    def shifts(self, step: Fraction) -> Array:
        """[tiles, 1]; the offsets are such that these are whole."""
        return (self.offsets * step.numerator // step.denominator)[:, None]


def alignment(tile: Graph, whole: Graph, along: Along) -> int:
    """What offsets have to be multiples of: every tensor then moves by whole elements."""
    steps = [
        along.step(a, b)
        for ours, theirs in zip(tile.op_nodes(), whole.op_nodes(), strict=True)
        for s, t in zip(ours.call.kernel.stages, theirs.call.kernel.stages, strict=False)
        for a, b in zip(s.target.type.shape, t.target.type.shape, strict=False)
    ]
    return int(np.lcm.reduce([1, *(step.denominator for step in steps)]))


def agreement(tile: Graph, whole: Graph, along: Along) -> dict[Value, Track]:
    """For every value of the tile's graph how it stands to the whole one."""
    tracks: dict[Value, Track] = {}
    for ours, theirs in zip(tile.nodes(), whole.nodes(), strict=True):
        if isinstance(ours, OpNode):
            assert isinstance(theirs, OpNode)
            found = _through(ours, theirs, tracks, along)
            tracks |= zip(ours.outputs, found, strict=True)
            continue
        pairs = zip(ours.outputs, theirs.outputs, strict=True)
        for mine, other in pairs:
            tracks[mine] = _given(ours.name, mine.type, other.type, along)
    return tracks


def _given(name: str, mine: TensorType, other: TensorType, along: Along) -> Track:
    """An input or a weight."""
    if name == along.input:
        agrees = np.ones((len(along.offsets), along.tile), bool)
        return Track(along.axis, Fraction(1), agrees)
    return _constant(mine.shape == other.shape, along)


def _constant(agrees: bool, along: Along) -> Track:
    return Track(None, Fraction(0), np.full((len(along.offsets), 1), agrees))


def _through(
    ours: OpNode, theirs: OpNode, tracks: Mapping[Value, Track], along: Along
) -> list[Track]:
    """The outputs of an operator."""
    mine, other = ours.call.kernel, theirs.call.kernel
    names = (mine.outputs, [s.target.name for s in mine.stages])
    if names != (other.outputs, [s.target.name for s in other.stages]):
        return [_constant(False, along) for _ in ours.outputs]
    known = {name: tracks[value] for name, value in ours.inputs.items()}
    for stage, counterpart in zip(mine.stages, other.stages, strict=True):
        known[stage.target.name] = _StagePair(stage, counterpart, known, along).track()
    return [known[name] for name in mine.outputs]


_Condition: TypeAlias = "tuple[IndexCompare, IndexCompare, bool]"  # ours, theirs, and its truth


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A read, or an index that is a value or decides something, in both expressions."""

    ours: Read | IndexValue | IndexCompare
    theirs: Expr
    around: tuple[Axis, ...]  # reductions
    conditions: tuple[_Condition, ...]


class _UnlikeError(Exception):
    """The two expressions differ in more than extents."""


class _StagePair:
    """One stage of an operator, in both graphs."""

    def __init__(
        self, ours: Stage, theirs: Stage, known: Mapping[str, Track], along: Along
    ) -> None:
        self._ours, self._theirs, self._known, self._along = ours, theirs, known, along

    def track(self) -> Track:
        pairs = list(zip(self._ours.axes, self._theirs.axes, strict=True))
        moving = [n for n, (a, b) in enumerate(pairs) if a.extent != b.extent]
        if len(moving) > 1:
            return _constant(False, self._along)
        try:
            leaves = list(_leaves(self._ours.body, self._theirs.body))
        except _UnlikeError:
            leaves = None
        if not moving:
            agrees = leaves is not None and all(map(self._is_fixed, leaves))
            return _constant(agrees, self._along)
        (axis,) = moving
        mine, other = pairs[axis]
        step = self._along.step(mine.extent, other.extent)
        agrees = np.full((len(self._along.offsets), _known(mine.extent)), leaves is not None)
        for leaf in leaves or ():
            pair = _LeafPair(leaf, mine, self._ours.axes, step, self._known, self._along)
            agrees &= pair.agrees()
        return Track(axis, step, agrees)

    def _is_fixed(self, leaf: _Leaf) -> bool:
        """Whether a leaf is the same in both, where no axis moves."""
        if not isinstance(leaf.ours, Read):
            return leaf.ours == leaf.theirs
        track = self._known[leaf.ours.tensor.name]
        assert isinstance(leaf.theirs, Read)
        same = leaf.ours.index == leaf.theirs.index
        return same and track.axis is None and bool(track.agrees.all())


def _leaves(
    ours: Expr,
    theirs: Expr,
    around: tuple[Axis, ...] = (),
    conditions: tuple[_Condition, ...] = (),
) -> Iterator[_Leaf]:
    """All leaves; _UnlikeError where the expressions differ otherwise than by indices."""
    if type(ours) is not type(theirs) or _word(ours) != _word(theirs):
        raise _UnlikeError
    match ours, theirs:
        case (Read() | IndexValue() | IndexCompare(), _):
            yield _Leaf(ours, theirs, around, conditions)
        case (Reduce() | Pick(), _):
            axes = ours.axes if isinstance(ours, Reduce) else (ours.axis,)
            for mine, other in zip(children(ours), children(theirs), strict=True):
                yield from _leaves(mine, other, (*around, *axes), conditions)
        case (Select(), Select()):
            yield from _leaves(ours.condition, theirs.condition, around, conditions)
            mine, other = _conjunction(ours.condition), _conjunction(theirs.condition)
            pairs = list(zip(mine, other, strict=True))
            yes = tuple((a, b, True) for a, b in pairs)
            no = tuple((a, b, False) for a, b in pairs) if len(pairs) == 1 else ()
            yield from _leaves(ours.yes, theirs.yes, around, conditions + yes)
            yield from _leaves(ours.no, theirs.no, around, conditions + no)
        case _:
            for mine, other in zip(children(ours), children(theirs), strict=True):
                yield from _leaves(mine, other, around, conditions)


def _conjunction(e: Expr) -> tuple[IndexCompare, ...]:
    """Comparisons of indices that all hold where the condition does."""
    if isinstance(e, IndexCompare):
        return (e,)
    if isinstance(e, Binary) and e.op == "and":
        return _conjunction(e.a) + _conjunction(e.b)
    return ()


def _word(e: Expr) -> Any:
    """What an expression is, but for its parts and indices."""
    match e:
        case Literal():
            return e.type, repr(e.value)
        case Read():
            return e.tensor.name, repr(e.outside)
        case Unary() | Binary() | Compare() | IndexCompare():
            return e.op
        case Cast():
            return e.type
        case Reduce():
            return e.op, e.accumulate, [(axis.name, axis.extent) for axis in e.axes]
        case Pick():
            return e.axis.name, e.axis.extent, e.from_end, repr(e.outside)
        case _:
            return None


class _LeafPair:
    """One leaf, while an axis of the result moves."""

    def __init__(
        self,
        leaf: _Leaf,
        moving: Axis,
        axes: Sequence[Axis],
        step: Fraction,
        known: Mapping[str, Track],
        along: Along,
    ) -> None:
        self._leaf, self._moving, self._along, self._known = leaf, moving, along, known
        self._shifts = along.shifts(step)
        self._others = [a for a in (*axes, *leaf.around) if a.name != moving.name]

    def agrees(self) -> Array:
        """[tiles, extent], or [tiles, 1]: whether all that the leaf is, at all positions of the
        other axes, is the same."""
        leaf = self._leaf
        match leaf.ours, leaf.theirs:
            case IndexValue(), IndexValue():
                return self._everywhere([(leaf.ours.index, leaf.theirs.index)])
            case IndexCompare(), IndexCompare():
                return self._compares(leaf.ours, leaf.theirs)
            case Read(), Read():
                return self._reads(leaf.ours, leaf.theirs)
            case _:
                raise AssertionError

    def _compares(self, ours: IndexCompare, theirs: IndexCompare) -> Array:
        if not self._moves(ours.a - ours.b) and not self._moves(theirs.a - theirs.b):
            return np.full((1, 1), ours == theirs)

        def agree(tile: Bindings, whole: Bindings) -> Array:
            return _truth(ours, tile) == _truth(theirs, whole)

        return self._numbers(agree, [ours.a, ours.b, theirs.a, theirs.b])

    def _reads(self, ours: Read, theirs: Read) -> Array:
        track = self._known[ours.tensor.name]
        if track.nowhere:
            return np.zeros((1, 1), bool)
        pairs = list(zip(ours.index, theirs.index, strict=True))
        carrying = None if track.axis is None else pairs.pop(track.axis)
        agrees = self._everywhere([pair for pair in pairs if any(map(self._moves, pair))])
        still = [pair for pair in pairs if not any(map(self._moves, pair))]
        if any(mine != other for mine, other in still):
            return np.zeros((1, 1), bool)
        if carrying is None or track.axis is None:
            return agrees & track.agrees
        mine, other = carrying
        extents = ours.tensor.type.shape[track.axis], theirs.tensor.type.shape[track.axis]
        shifts = self._along.shifts(track.step)
        return agrees & self._elements(mine, other, extents, shifts, track.agrees)

    def _elements(
        self, mine: Dim, other: Dim, extents: tuple[Dim, Dim], shifts: Array, known: Array
    ) -> Array:
        """Whether the positions along the moving axis of an operand are of elements that agree."""
        inside_of = [_known(extent) for extent in extents]
        conditions = [c for c in self._leaf.conditions if self._decides(c)]

        def agree(tile: Bindings, whole: Bindings) -> Array:
            here, there = np.asarray(evaluate(mine, tile)), np.asarray(evaluate(other, whole))
            inside = (here >= 0) & (here < inside_of[0])
            within = (there >= 0) & (there < inside_of[1])
            spread = shifts.reshape(-1, *(1,) * (tile[self._moving.name].ndim - 1))
            tiles = np.arange(len(shifts)).reshape(spread.shape)
            element = known[tiles, here.clip(0, inside_of[0] - 1)]
            same = inside & within & (there == here + spread) & element
            found = same | (~inside & ~within)
            for ours, theirs, truth in conditions:
                taken, there_too = _truth(ours, tile) == truth, _truth(theirs, whole) == truth
                found = found | (~taken & ~there_too)
            return found

        dims = [mine, other, *(d for a, b, _ in conditions for d in (a.a, a.b, b.a, b.b))]
        return self._numbers(agree, dims)

    def _decides(self, condition: _Condition) -> bool:
        """Whether a condition is about the moving axis, and of others only about reductions."""
        return any(self._moves(c.a - c.b) for c in condition[:2])

    def _everywhere(self, pairs: Sequence[tuple[Dim, Dim]]) -> Array:
        """Whether indices are the same numbers in both."""
        found = np.ones((len(self._shifts), 1), bool)
        name = self._moving.name
        for mine, other in pairs:
            moved = [
                substitute(other, {name: self._moving.i + int(shift)}) == mine
                for shift in self._shifts[:, 0]
            ]
            if all(moved):
                continue
            found = found & self._numbers(_Equal(mine, other), [mine, other])
        return found

    def _numbers(self, agree: Callable[[Bindings, Bindings], Array], dims: Sequence[Dim]) -> Array:
        """`agree` over a grid of all axes in these indices, and over the tiles: all of it for each
        position [tiles, extent]; nowhere where the grid is too large."""
        names = {name for dim in dims for name in _names(dim)}
        others = [axis for axis in self._others if axis.name in names]
        known = {self._moving.name, *(axis.name for axis in others)}
        extents = [_known(axis.extent) for axis in others]
        count = _known(self._moving.extent)
        size = len(self._shifts) * count * int(np.prod(extents, dtype=np.int64))
        if names - known or size > LARGEST_GRID:
            return np.zeros((1, 1), bool)
        rank = 2 + len(others)
        positions = np.arange(count).reshape(1, count, *(1,) * len(others))
        tile = {self._moving.name: positions}
        for number, (axis, extent) in enumerate(zip(others, extents, strict=True)):
            shape = [1] * rank
            shape[2 + number] = extent
            tile[axis.name] = np.arange(extent).reshape(shape)
        shifts = self._shifts.reshape(-1, *(1,) * (rank - 1))
        whole = tile | {self._moving.name: positions + shifts}
        shape = (len(self._shifts), count, *extents)
        found: Array = np.broadcast_to(np.asarray(agree(tile, whole)), shape)
        return np.logical_and.reduce(found.reshape(*shape[:2], -1), axis=2)

    def _moves(self, dim: Dim) -> bool:
        return self._moving.name in _names(dim)


@dataclass(frozen=True, slots=True)
class _Equal:
    """Whether two indices are the same number."""

    mine: Dim
    other: Dim

    def __call__(self, tile: Bindings, whole: Bindings) -> Array:
        return np.asarray(np.equal(evaluate(self.mine, tile), evaluate(self.other, whole)))


def _known(extent: Dim) -> int:
    assert isinstance(extent, int)
    return extent


def _names(dim: Dim) -> set[str]:
    return {symbol.name for symbol in symbols_of(dim)}


def _truth(compare: IndexCompare, bindings: Mapping[str, Array]) -> Array:
    a, b = evaluate(compare.a, bindings), evaluate(compare.b, bindings)
    found: Any = FUNCTIONS[compare.op].meaning(a, b)
    return np.asarray(found)

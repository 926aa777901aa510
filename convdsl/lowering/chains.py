"""Chains of stages as they grow: what runs in one kernel, and what ends it.

A stage that reads another at its own position joins its chain: the value stays in a register and
is computed once, however often it is read. So do stages that read the same memory at the same
positions, as several sums of one tensor do. What is read at other positions, or inside a reduction,
is made by a chain before, and lies in memory. A reduction over what a chain computes at each
position, each position once, may end it: then that need not lie in memory either. Nothing is ever
written into its readers, so that expressions stay as long as their operators made them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from convdsl.ir.classify import is_in_place, reduced_axes
from convdsl.kernel.expr import (
    Axis,
    Cast,
    Expr,
    Read,
    Reduce,
    Stage,
    TensorVar,
    reads,
    reindex,
    transform,
    walk,
)
from convdsl.kernel.layout import Layout
from convdsl.kernel.ranks import match_ranks
from convdsl.kernel.renaming import over, renamed
from convdsl.kernel.running import match_running
from convdsl.kernel.scatter import match_scatter
from convdsl.tensor import Dim, symbols_of


@dataclass(frozen=True)
class Chain:
    """Stages over the same axes, in order, at most one of them with reductions; the names of
    those that are stored, for other chains or as values that leave the group.

    ending: stages over some of these axes, after reductions over the others; axes that are the same
    bear the same names. `ending_outputs` are stored of them.
    """

    stages: tuple[Stage, ...]
    outputs: tuple[str, ...]
    ending: tuple[Stage, ...] = ()
    ending_outputs: tuple[str, ...] = ()

    @property
    def operands(self) -> dict[str, TensorVar]:
        """What it reads from memory, by name."""
        stages = (*self.stages, *self.ending)
        inner = {stage.target.name for stage in stages}
        found = (read.tensor for stage in stages for read in reads(stage.body))
        return {var.name: var for var in found if var.name not in inner}

    def apart(self) -> tuple[Chain, ...]:
        """The same without an ending: what that reads is stored, and it is a chain of its own. What
        is stored rounded in any case is not stored a second time."""
        if not self.ending:
            return (self,)
        ending = tuple(self._of_rounded(stage) for stage in self.ending)
        read = {name for stage in ending for name in names_read(stage)}
        outputs = _among(self.stages, read.union(self.outputs))
        return Chain(self.stages, outputs), Chain(ending, self.ending_outputs)

    def _of_rounded(self, stage: Stage) -> Stage:
        """A stage of the ending, read from what is rounded as it leaves (`narrowing`: who reads it
        takes it so) where nothing else is kept of a value."""
        rounded: dict[str, TensorVar] = {}
        for own in self.stages:
            match own.body:
                case Cast(Read() as whole, dtype) if (
                    dtype.computed is whole.dtype
                    and own.target.name in self.outputs
                    and whole.tensor.name not in self.outputs
                    and is_in_place(whole, own.axes)
                ):
                    rounded[whole.tensor.name] = own.target
                case _:
                    pass

        def rule(e: Expr) -> Expr | None:
            if not isinstance(e, Read) or e.tensor.name not in rounded:
                return None
            return Cast(replace(e, tensor=rounded[e.tensor.name]), e.dtype)

        return replace(stage, body=transform(stage.body, rule))


def names_read(stage: Stage) -> set[str]:
    """The variables that a stage reads."""
    return {read.tensor.name for read in reads(stage.body)}


@dataclass(slots=True)
class _Growing:
    """A chain that may still grow, over the axes of its first stage, and so is its ending."""

    stages: list[Stage] = field(default_factory=list[Stage])
    ending: list[Stage] = field(default_factory=list[Stage])
    reduces: bool = False
    closed: bool = False

    @property
    def axes(self) -> tuple[Axis, ...]:
        return self.stages[0].axes


class Chains:
    """Chains as they grow. Each stage joins the last of the chains that it reads from, or begins
    one after it: so that none waits for a later one."""

    def __init__(self, layouts: Mapping[str, Layout]) -> None:
        self._layouts = layouts
        self._chains: list[_Growing] = []
        self._home: dict[str, int] = {}  # of each stage: its chain
        self._read: dict[str, frozenset[Read]] = {}  # of stages that were asked for: `_places_read`

    def add(self, stage: Stage) -> None:
        last = max((self._home.get(name, -1) for name in names_read(stage)), default=-1)
        if last < 0 and self._chains and self._joins(stage, len(self._chains) - 1):
            last = len(self._chains) - 1  # it waits for nobody, and who reads it may be there
        if _is_in_order(stage):
            self._chains.append(_Growing(closed=True))
            last = len(self._chains) - 1
            ending = None
        else:
            ending = _ending(stage, self._chains[last]) if last >= 0 else None
            if ending is None and (last < 0 or not self._joins(stage, last)):
                stage, last = self._beside(stage, last)
        self._home[stage.target.name] = last
        chain = self._chains[last]
        if ending is not None:
            chain.ending.append(ending)
            return
        chain.stages.append(stage)
        chain.reduces = chain.reduces or _reduces(stage.body)

    def _beside(self, stage: Stage, last: int) -> tuple[Stage, int]:
        """The stage, and the first chain after `last` in which a stage reads what it reads; a new
        one if there is none."""
        for number in range(last + 1, len(self._chains)):
            chain = self._chains[number]
            if not (chain.ending or chain.closed) and self._is_cut_alike(stage, chain):
                own = self._places(stage)
                for other in chain.stages:
                    theirs = self._places(other)
                    meets = not own.isdisjoint(theirs) or not (own or theirs)
                    made = _beside(stage, other) if meets else None
                    if made is not None:
                        return made, number
        self._chains.append(_Growing())
        return stage, len(self._chains) - 1

    def _places(self, stage: Stage) -> frozenset[Read]:
        name = stage.target.name
        if name not in self._read:
            self._read[name] = _places_read(stage)
        return self._read[name]

    def _is_cut_alike(self, stage: Stage, chain: _Growing) -> bool:
        own, others = (self._layouts[s.target.name] for s in (stage, chain.stages[0]))
        return (own.axis, own.block) == (others.axis, others.block)

    def _joins(self, stage: Stage, last: int) -> bool:
        chain = self._chains[last]
        if chain.closed or not self._is_cut_alike(stage, chain):
            return False
        if chain.reduces and _reduces(stage.body):
            return False
        if names_read(stage) & {s.target.name for s in chain.ending}:
            return False
        inner = {s.target.name for s in chain.stages}
        return _reads_at_own_position(stage, chain.axes, inner)

    def finished(self, leaving: frozenset[str]) -> tuple[Chain, ...]:
        made: list[Chain] = []
        read = set(leaving)  # by the chains behind, and by others
        for chain in reversed(self._chains):
            axes = chain.stages[-1].axes
            stages = tuple(over(stage, axes) for stage in chain.stages)
            names = {old.name: new for old, new in zip(chain.axes, axes, strict=True)}
            ending = tuple(renamed(stage, names) for stage in chain.ending)
            made.append(Chain(stages, _among(stages, read), ending, _among(ending, read)))
            read.update(name for s in (*stages, *ending) for name in names_read(s))
        return tuple(reversed(made))


def _among(stages: Sequence[Stage], names: Collection[str]) -> tuple[str, ...]:
    return tuple(stage.target.name for stage in stages if stage.target.name in names)


def _is_in_order(stage: Stage) -> bool:
    """Whether a stage's reductions are made for all positions at once: by position, one term after
    the other, running, or by ranking. Such a stage is a chain by itself."""
    forms = (match_scatter(stage.body), match_running(stage), match_ranks(stage))
    return any(form is not None for form in forms)


def _ending(stage: Stage, chain: _Growing) -> Stage | None:
    """The stage as one more of a chain's ending, over axes named as the chain's; None if it cannot
    be that. It reduces what the chain computes, or reads in place what was reduced."""
    if chain.closed:
        return None
    main = {s.target.name for s in chain.stages}
    ended = {s.target.name for s in chain.ending}
    read = names_read(stage)
    axes = chain.ending[0].axes if chain.ending else stage.axes
    if not read & (main | ended) or not _reads_at_own_position(stage, axes, ended):
        return None
    if not read & main:
        return None if _reduces(stage.body) else over(stage, axes)
    shape = tuple(axis.extent for axis in chain.axes)
    along = reduced_axes(stage, main, shape)
    if along is None:
        return None
    made = _along(stage, along, chain.axes)
    return made if not chain.ending or made.axes == axes else None


def _beside(stage: Stage, other: Stage) -> Stage | None:
    """The stage over axes named as another's, if both walk the same positions: of a whole tensor
    that both read, or of nothing but indices and numbers."""
    own, theirs = _walked(stage), _walked(other)
    if own is None or theirs is None:
        return None
    shapes = [tuple(a.extent for a in axes) for axes in (stage.axes, own, other.axes, theirs)]
    if shapes[:2] != shapes[2:]:
        return None
    made = over(stage, other.axes)
    pairs = zip(_walked(made) or (), theirs, strict=True)
    made = renamed(made, {old.name: new for old, new in pairs})
    read, known = ({r for r in reads(s.body) if r.tensor.type.rank} for s in (made, other))
    if not read and not known and not theirs:
        return made
    whole = {axis.name for axis in (*other.axes, *theirs) if axis.extent != 1}
    return made if any(_meets_once(r, whole) for r in read & known) else None


def _places_read(stage: Stage) -> frozenset[Read]:
    """The reads of tensors, axes named by their places: those of stages that stand beside each
    other meet."""
    axes = (*stage.axes, *(_walked(stage) or ()))
    names = {axis.name: Axis(f"@{place}", axis.extent) for place, axis in enumerate(axes)}
    body = renamed(stage, names).body
    return frozenset(r for r in reads(body) if r.tensor.type.rank)


def _walked(stage: Stage) -> tuple[Axis, ...] | None:
    """The axes that all reductions of a stage run over; None where they differ."""
    found = {node.axes for node in walk(stage.body) if isinstance(node, Reduce)}
    return None if len(found) > 1 else next(iter(found), ())


def _meets_once(read: Read, names: set[str]) -> bool:
    """Whether a tensor is read at other places for other positions of all these axes."""
    places = [place for place in read.index if not isinstance(place, int)]
    found = [next(iter(symbols_of(place))).name for place in places]
    plain = all(len(symbols_of(place)) == 1 for place in places)
    return plain and len(found) == len(set(found)) and set(found) == names


def _along(stage: Stage, along: dict[str, int], axes: tuple[Axis, ...]) -> Stage:
    """The stage over axes named as those that they run along; others have an extent of 1."""
    names = {name: axes[position] for name, position in along.items()}
    names |= {a.name: Axis(f"one{k}", 1) for k, a in enumerate(stage.axes) if a.name not in along}

    def rule(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce):
            return None
        wide = tuple(axis for axis in node.axes if axis.name in along)
        single: dict[str, Dim] = {axis.name: 0 for axis in node.axes if axis.name not in along}
        return Reduce(node.op, wide, reindex(node.body, single))

    wide = Stage(stage.target, stage.axes, transform(stage.body, rule))
    # By names that nothing has, since the old ones may be new ones of other axes.
    apart = {name: Axis(f"{name}@", axis.extent) for name, axis in names.items()}
    back = {f"{name}@": axis for name, axis in names.items()}
    return renamed(renamed(wide, apart), back)


def _reads_at_own_position(stage: Stage, axes: tuple[Axis, ...], names: Collection[str]) -> bool:
    """Whether a stage over as many positions as `axes` reads those tensors nowhere but at its own,
    and not inside a reduction, which would read them again and again."""
    if tuple(a.extent for a in stage.axes) != tuple(a.extent for a in axes):
        return False
    inside = (r for node in walk(stage.body) if isinstance(node, Reduce) for r in reads(node))
    if any(read.tensor.name in names for read in inside):
        return False
    inner = (read for read in reads(stage.body) if read.tensor.name in names)
    return all(is_in_place(read, stage.axes) for read in inner)


def _reduces(e: Expr) -> bool:
    return any(isinstance(node, Reduce) for node in walk(e))

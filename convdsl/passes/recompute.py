"""Maps computed again instead of kept: memory for arithmetic.

What the forward pass makes is read once more, much later, by the backward pass, and lies in memory
until then. Where a value is alive at the fullest moment and nobody reads it there, its kernel can
run a second time, just before it is read again. Chen et al. 2016, arXiv:1604.06174.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from convdsl.ir.build import Names
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.groups import kernels_of, leaving
from convdsl.passes.rewrite import Pass
from convdsl.tensor import Dim

_NEVER = 1 << 62  # FLOPs that no budget has
_TRIES = 10_000  # choices looked at; far more than any network needs


@dataclass(frozen=True)
class Recompute(Pass):
    """Compute values again instead of keeping them, those first that save the most bytes per FLOP.

    `share` is how many FLOPs may be spent on it, as a share of those of the graph; 0 keeps all.
    Kernels are those of the groups, so this comes after fusion. What follows is the same to the
    bit: the same kernels on the same values.
    """

    name: ClassVar[str] = "recompute"
    share: float = 0.0

    def run(self, graph: Graph) -> int:
        if self.share <= 0:
            return 0
        plan = _Plan.of(graph)
        budget = self.share * sum(flops for flops in plan.flops if flops < _NEVER)
        for _ in range(_TRIES):
            again = plan.best(budget)
            if again is None:
                break
            budget -= plan.flops[plan.maker[again.value]]
            plan.apply(again)
        return _apply(graph, plan)


@dataclass(frozen=True, slots=True)
class _Again:
    """A value that is made again before a kernel: who reads it from there on reads that."""

    value: Value
    before: int


@dataclass
class _Plan:
    """The kernels in the order of running, and where each value is read.

    Kernels keep their numbers; what is made again, is made just before the kernel that reads it.
    """

    kernels: list[list[OpNode]]
    flops: list[int]
    maker: dict[Value, int]
    uses: dict[Value, list[int]]  # numbers of the kernels that read it, ascending
    kept: set[Value]  # what a call leaves behind: alive to the end
    again: dict[Value, int] = field(default_factory=dict[Value, int])  # from which kernel on
    full: int | None = None  # bytes at the fullest kernel of before, to see progress

    @classmethod
    def of(cls, graph: Graph) -> _Plan:
        kernels = kernels_of(graph)
        maker = {v: n for n, kernel in enumerate(kernels) for v in leaving(graph, kernel)}
        uses: dict[Value, list[int]] = {value: [] for value in maker}
        for number, kernel in enumerate(kernels):
            for value in dict.fromkeys(v for node in kernel for v in node.inputs.values()):
                if value in maker and maker[value] != number:
                    uses[value].append(number)
        kept = {value for value in maker if graph.is_result(value)}
        return cls(kernels, [_flops(kernel) for kernel in kernels], maker, uses, kept)

    def best(self, budget: float) -> _Again | None:
        """What saves the most bytes per FLOP at the fullest kernel; None where nothing does."""
        alive = self._alive()
        at = max(range(len(alive)), key=alive.__getitem__, default=0)
        if not alive or (self.full is not None and alive[at] > self.full):
            return None
        self.full = alive[at]
        best: tuple[float, _Again] | None = None
        for value, uses in self.uses.items():
            if value in self.again or value in self.kept or self.flops[self.maker[value]] > budget:
                continue
            after = bisect_left(uses, at)
            if after == len(uses) or uses[after] == at or self.maker[value] >= at:
                continue
            saved = _bytes(value) - self._extended(value, at, uses[after])
            worth = saved / (1 + self.flops[self.maker[value]])
            if saved > 0 and (best is None or worth > best[0]):
                best = worth, _Again(value, uses[after])
        return None if best is None else best[1]

    def _extended(self, value: Value, at: int, until: int) -> int:
        """Bytes that must be kept longer at a kernel, so that the value can be made again later."""
        total = 0
        for operand in self._operands(value):
            uses = self.uses[operand]
            first, last = self._ranges(operand)[-1]
            if first > until:  # made again only after that: its first copy would have to stay
                first, last = self.maker[operand], self._ranges(operand)[0][1]
            if last < at and operand not in self.kept:
                total += _bytes(operand)
            assert uses
        return total

    def _operands(self, value: Value) -> list[Value]:
        kernel = _needed(self.kernels[self.maker[value]], value)
        found = dict.fromkeys(v for node in kernel for v in node.inputs.values())
        return [v for v in found if v in self.maker and self.maker[v] != self.maker[value]]

    def apply(self, again: _Again) -> None:
        """Make a value again; what that reads is read there, too."""
        self.again[again.value] = again.before
        for operand in self._operands(again.value):
            uses = self.uses[operand]
            place = bisect_left(uses, again.before)
            if place == len(uses) or uses[place] != again.before:
                uses.insert(place, again.before)

    def _ranges(self, value: Value) -> list[tuple[int, int]]:
        """From which kernel to which a value lies in memory."""
        uses, made = self.uses[value], self.maker[value]
        if value in self.kept:
            return [(made, len(self.kernels) - 1)]
        if value not in self.again:
            return [(made, uses[-1] if uses else made)]
        split = bisect_left(uses, self.again[value])
        return [(made, uses[split - 1] if split else made), (uses[split], uses[-1])]

    def _alive(self) -> list[int]:
        """Bytes alive at each kernel."""
        changes = [0] * (len(self.kernels) + 1)
        for value in self.maker:
            for first, last in self._ranges(value):
                changes[first] += _bytes(value)
                changes[last + 1] -= _bytes(value)
        total, found = 0, list[int]()
        for change in changes[:-1]:
            total += change
            found.append(total)
        return found


def _apply(graph: Graph, plan: _Plan) -> int:
    """Put the second kernels into the graph, those that are read first with the least ids: of
    what can run, what stands first runs first, and these only when nothing else can."""
    names = Names(node.name for node in graph.nodes())
    group = max((n.group for n in graph.op_nodes() if n.group is not None), default=-1)
    made: dict[Value, tuple[Value, int]] = {}
    order = sorted(plan.again, key=lambda v: (plan.again[v], plan.maker[v]))
    for value in order:
        before, group = plan.again[value], group + 1
        copies: dict[Value, Value] = {}
        for node in _needed(plan.kernels[plan.maker[value]], value):
            inputs = {
                name: copies.get(v) or _at(made, v, before) for name, v in node.inputs.items()
            }
            copy = graph.apply(
                node.op,
                inputs,
                node.attributes,
                name=names.unused(f"{node.name}.again"),
                span=node.span,
                frames=node.frames,
            )
            copy.group = group
            copies.update(zip(node.outputs, copy.outputs, strict=True))
        made[value] = copies[value], before
    _rewire(graph, plan, made)
    return len(order)


def _rewire(graph: Graph, plan: _Plan, made: Mapping[Value, tuple[Value, int]]) -> None:
    """Late readers read what was made again."""
    for number, kernel in enumerate(plan.kernels):
        for node in kernel:
            for name, value in list(node.inputs.items()):
                copy, before = made.get(value, (value, number))
                if copy is not value and number >= before and number != plan.maker[value]:
                    graph.set_input(node, name, copy)


def _at(made: Mapping[Value, tuple[Value, int]], value: Value, kernel: int) -> Value:
    """What is to be read for a value by what runs before a kernel."""
    copy, before = made.get(value, (value, kernel + 1))
    return copy if before <= kernel else value


def _needed(kernel: list[OpNode], value: Value) -> list[OpNode]:
    """The nodes of a kernel that a value of it needs, in their order."""
    wanted = {value.node.id}
    for node in reversed(kernel):
        if node.id in wanted:
            wanted.update(v.node.id for v in node.inputs.values())
    return [node for node in kernel if node.id in wanted]


def _flops(kernel: list[OpNode]) -> int:
    """Arithmetic of a kernel; what is not known counts as too much, and so does waiting for other
    ranks a second time."""
    if kernel[0].op.exchanges:
        return _NEVER
    counts = (node.op.cost(node.call).flops for node in kernel)
    return sum(count if isinstance(count, int) else _NEVER for count in counts)


def _bytes(value: Value) -> int:
    count: Dim = value.type.bytes
    return count if isinstance(count, int) else 0

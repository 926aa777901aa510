"""A group of nodes as one list of stages: producers written into their only readers.

Names are made anew and alike for alike groups, so that equal layers give equal tasks and
share their kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from convdsl.ir.graph import OpNode, Value
from convdsl.ir.rules import kernel_of
from convdsl.kernel.expr import (
    Axis,
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


@dataclass(frozen=True)
class Composed:
    """Stages in order; where each variable comes from (`sources`: values from outside the
    group) or goes to (`targets`: values that leave it)."""

    op: str  # the root's operator, for listings
    stages: tuple[Stage, ...]
    sources: dict[str, Value]
    targets: dict[str, Value]


def compose(nodes: Sequence[OpNode], root: OpNode) -> Composed:
    """The stages of a group, nodes in topological order; inner values are inlined."""
    composer = _Composer()
    for node in nodes:
        composer.add(node)
    last = nodes[-1]
    targets = {composer.names[value]: value for value in last.outputs}
    stages = _inline(composer.stages, frozenset(targets))
    sources = {name: value for value, name in composer.names.items() if name[0] in "xw"}
    return Composed(root.op.name, tuple(stages), sources, targets)


class _Composer:
    def __init__(self) -> None:
        self.names: dict[Value, str] = {}
        self.stages: list[Stage] = []
        self._count = 0

    def add(self, node: OpNode) -> None:
        kernel = kernel_of(node.call)
        renamed = {operand: self._var(value) for operand, value in node.inputs.items()}
        for stage in kernel.stages:
            name = f"t{self._count}"
            self._count += 1
            made = TensorVar(name, stage.target.type)
            body = _rename(stage.body, renamed)
            renamed[stage.target.name] = made
            self.stages.append(Stage(made, stage.axes, body))
        for output, value in zip(node.call.output_names, node.outputs, strict=True):
            self.names[value] = renamed[output].name

    def _var(self, value: Value) -> TensorVar:
        if value not in self.names:
            self.names[value] = f"x{len([n for n in self.names.values() if n[0] == 'x'])}"
        return TensorVar(self.names[value], value.type)


def _rename(e: Expr, variables: dict[str, TensorVar]) -> Expr:
    def rule(node: Expr) -> Expr | None:
        if isinstance(node, Read):
            return replace(node, tensor=variables[node.tensor.name])
        return None

    return transform(e, rule)


def _inline(stages: list[Stage], leaving: frozenset[str]) -> list[Stage]:
    """Write a stage into its readers where that repeats no work."""
    kept = list(stages)
    for name in [stage.target.name for stage in stages]:
        stage = next(s for s in kept if s.target.name == name)  # as rewritten so far
        found = [(s, r) for s in kept for r in reads(s.body) if r.tensor.name == name]
        if name in leaving or not found or not _may_inline(stage, found):
            continue
        kept = [_substitute(s, stage) for s in kept if s.target.name != name]
    return kept


def _may_inline(stage: Stage, found: list[tuple[Stage, Read]]) -> bool:
    """Every reader reads in place; a reduction is not repeated in several expressions."""
    shape = tuple(axis.extent for axis in stage.axes)
    for reader, read in found:
        if tuple(axis.extent for axis in reader.axes) != shape or read.outside is not None:
            return False
        own = zip(read.index, reader.axes, strict=True)
        if not all(d == a.i or (d == 0 and a.extent == 1) for d, a in own):
            return False
        if any(r.tensor.name == stage.target.name for r in _inside_reductions(reader.body)):
            return False
    heavy = any(isinstance(node, Reduce) for node in walk(stage.body))
    return not heavy or len({reader.target.name for reader, _ in found}) == 1


def _inside_reductions(e: Expr) -> list[Read]:
    return [r for node in walk(e) if isinstance(node, Reduce) for r in reads(node)]


def _substitute(reader: Stage, stage: Stage) -> Stage:
    if all(read.tensor.name != stage.target.name for read in reads(reader.body)):
        return reader
    taken = frozenset(axis.name for axis in reader.axes)
    body = _without_capture(stage.body, taken | {axis.name for axis in stage.axes})
    # The reader reads in place, so its axes stand for the stage's, those of extent 1 as well.
    own = {axis.name: at.i for axis, at in zip(stage.axes, reader.axes, strict=True)}
    inlined = reindex(body, own)

    def rule(node: Expr) -> Expr | None:
        if isinstance(node, Read) and node.tensor.name == stage.target.name:
            return inlined
        return None

    return Stage(reader.target, reader.axes, transform(reader.body, rule))


def _without_capture(e: Expr, taken: frozenset[str]) -> Expr:
    """Rename reduction axes whose names the reader uses for axes of its own."""

    def rule(node: Expr) -> Expr | None:
        if not isinstance(node, Reduce):
            return None
        names = {a.name: _free_name(a.name, taken) for a in node.axes}
        axes = tuple(Axis(names[a.name], a.extent) for a in node.axes)
        bindings = {old.name: new.i for old, new in zip(node.axes, axes, strict=True)}
        return Reduce(node.op, axes, reindex(node.body, bindings))

    return transform(e, rule)


def _free_name(name: str, taken: frozenset[str]) -> str:
    while name in taken:
        name += "_"
    return name

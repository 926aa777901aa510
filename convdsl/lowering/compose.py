"""A group of nodes as chains of stages, each chain one kernel (`chains`).

Names are made anew and alike for alike groups, so that equal layers give equal tasks and
share their kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

from convdsl.ir.graph import OpNode, StateNode, Value
from convdsl.ir.opdef import Role
from convdsl.ir.rules import kernel_of
from convdsl.ir.timing import Timing
from convdsl.kernel.expr import (
    Cast,
    Expr,
    Literal,
    Read,
    Stage,
    TensorExpr,
    TensorVar,
    transform,
)
from convdsl.kernel.layout import Layout
from convdsl.lowering.chains import Chain, Chains, names_read
from convdsl.lowering.narrowing import WHOLE, Narrowed
from convdsl.schedules.contraction import factors_apart
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert


@dataclass(frozen=True)
class Composed:
    """Chains in order, after the stages over weights alone that they read (`folded`); where each
    variable comes from (`sources`: values from outside the group) or goes to (`targets`: values
    that leave it); how what stages make lies if it is stored (`layouts`); second names that sums of
    products of a tensor with itself read it by (`again`: the first ones)."""

    op: str  # the root's operator, for listings
    folded: tuple[Stage, ...]
    chains: tuple[Chain, ...]
    sources: dict[str, Value]
    targets: dict[str, Value]
    layouts: dict[str, Layout]
    again: dict[str, str]


@dataclass(frozen=True)
class _Shape:
    """What composing makes of all groups of equal operators, wiring and layouts."""

    kernels: tuple[TensorExpr, ...]  # that its key names by identity: they must stay
    folded: tuple[Stage, ...]
    chains: tuple[Chain, ...]
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    layouts: dict[str, Layout]
    again: dict[str, str]


class Composer:
    """Makes chains of the groups of a graph; the blocks of a network repeat, and of equal groups
    only the first is looked at.

    `layout` says how what a stage makes would lie. Only what is cut into vectors alike may share a
    chain. What is `narrowed` is rounded as it leaves, and widened where it is read.
    """

    def __init__(
        self,
        timing: Timing,
        layout: Callable[[OpNode, Stage], Layout],
        narrowed: Narrowed = WHOLE,
    ) -> None:
        self._timing = timing
        self._layout = layout
        self._narrowed = narrowed
        self._known: dict[Hashable, _Shape] = {}

    def compose(self, nodes: Sequence[OpNode], leaving: Sequence[Value]) -> Composed:
        """The chains of a group, nodes in topological order. `leaving` are the values that others
        read."""
        key, kernels, outside = self._key(nodes, leaving)
        shape = self._known.get(key)
        if shape is None:
            shape = self._known[key] = self._compose(nodes, leaving, kernels)
        sources = dict(zip(shape.sources, outside, strict=True))
        targets = dict(zip(shape.targets, leaving, strict=True))
        return Composed(
            *(nodes[0].op.name, shape.folded, shape.chains, sources, targets),
            *(shape.layouts, shape.again),
        )

    def _key(
        self, nodes: Sequence[OpNode], leaving: Sequence[Value]
    ) -> tuple[Hashable, tuple[TensorExpr, ...], list[Value]]:
        """What composing depends on, with the kernels that it names, and the values that the group
        reads from outside in the order in which they are named."""
        made: dict[Value, int] = {}
        read: dict[tuple[Value, DType], int] = {}
        kernels: list[TensorExpr] = []
        key: list[Hashable] = []
        for node in nodes:
            kernel = kernel_of(node.call)
            kernels.append(kernel)
            key.append((id(kernel), *(self._layout(node, stage) for stage in kernel.stages)))
            for operand, value in node.inputs.items():
                number = _number(value)
                if number is not None:
                    key.append((operand, repr(number)))
                elif value in made:
                    key.append((operand, made[value]))
                else:
                    type = self._narrowed.operand(node, operand)
                    place = read.setdefault((value, type.dtype), len(read))
                    key.append((operand, place, type, self._timing.is_bound(value.node)))
            for value in node.outputs:
                made[value] = len(made)
        left = ((made[value], self._narrowed.type(value)) for value in leaving)
        return (*key, *left), tuple(kernels), [value for value, _ in read]

    def _compose(
        self,
        nodes: Sequence[OpNode],
        leaving: Sequence[Value],
        kernels: tuple[TensorExpr, ...],
    ) -> _Shape:
        writer = _Writer(self._layout, self._narrowed)
        for node in nodes:
            writer.add(node)
        targets = [writer.leave(value) for value in leaving]
        sources = writer.sources
        is_bound = self._timing.is_bound
        weights = {name for name, value in sources.items() if is_bound(value.node)}
        stages = _wanted(writer.stages, targets)
        folded = _folded(stages, weights, targets)
        known = {stage.target.name for stage in folded}
        grown = Chains(writer.layouts)
        for stage in stages:
            if stage.target.name not in known:
                grown.add(stage)
        again: dict[str, str] = {}
        chains = tuple(
            _factors_apart(chain, sources, again) for chain in grown.finished(frozenset(targets))
        )
        return _Shape(
            *(kernels, tuple(folded), chains, tuple(sources), tuple(targets)),
            *(writer.layouts, again),
        )


def _factors_apart(chain: Chain, sources: Collection[str], again: dict[str, str]) -> Chain:
    """The chain whose products of a tensor from outside with itself read it by two names; new ones
    are noted. What the group makes may never lie in memory."""
    stages: list[Stage] = []
    for stage in chain.stages:
        apart = factors_apart(stage)
        if apart is not None and apart[1].name in sources:
            stage, first, second = apart
            again[second.name] = first.name
        stages.append(stage)
    return replace(chain, stages=tuple(stages))


class _Writer:
    """The stages of all nodes, in order, under names of their own."""

    def __init__(self, layout: Callable[[OpNode, Stage], Layout], narrowed: Narrowed) -> None:
        self.sources: dict[str, Value] = {}
        self.stages: list[Stage] = []
        self.layouts: dict[str, Layout] = {}
        self._layout = layout
        self._narrowed = narrowed
        self._made: dict[Value, Stage] = {}
        self._read: dict[tuple[Value, DType], str] = {}

    def add(self, node: OpNode) -> None:
        renamed: dict[str, TensorVar | Literal] = {
            operand: _number(value) or self._var(node, operand)
            for operand, value in node.inputs.items()
        }
        made: dict[str, TensorVar] = {}
        for stage in kernel_of(node.call).stages:
            target = TensorVar(f"t{len(self.stages)}", stage.target.type)
            body = _rename(stage.body, renamed)
            renamed[stage.target.name] = made[stage.target.name] = target
            self.layouts[target.name] = self._layout(node, stage)
            self.stages.append(Stage(target, stage.axes, body))
        stages = {stage.target.name: stage for stage in self.stages}
        for output, value in zip(node.call.output_names, node.outputs, strict=True):
            self._made[value] = stages[made[output].name]

    def leave(self, value: Value) -> str:
        """The name of what is stored of a value: itself, or what it is rounded to."""
        stage, type = self._made[value], self._narrowed.type(value)
        name = stage.target.name
        if type == value.type:
            return name
        target = TensorVar(f"{name}_{type.dtype}", type)
        here = Read(stage.target, tuple(axis.i for axis in stage.axes))
        self.stages.append(Stage(target, stage.axes, Cast(here, type.dtype)))
        self.layouts[target.name] = self.layouts[name]
        return target.name

    def _var(self, node: OpNode, operand: str) -> TensorVar:
        value = node.inputs[operand]
        if value in self._made:
            return self._made[value].target
        type = self._narrowed.operand(node, operand)
        name = self._read.setdefault((value, type.dtype), f"x{len(self._read)}")
        self.sources[name] = value
        return TensorVar(name, type)


def _number(value: Value) -> Literal | None:
    """A constant of one element, as a literal: kernels then need not load it, and powers know
    their exponents."""
    node = value.node
    if not isinstance(node, StateNode) or node.role is not Role.CONSTANT or node.data.size != 1:
        return None
    dtype = value.type.dtype
    return Literal(convert(node.data, dtype, dtype.computed).item(), dtype)


def _rename(e: Expr, variables: Mapping[str, TensorVar | Literal]) -> Expr:
    def rule(node: Expr) -> Expr | None:
        if not isinstance(node, Read):
            return None
        made = variables[node.tensor.name]
        if not isinstance(made, TensorVar):
            return made
        read = replace(node, tensor=made)
        return read if made.type.dtype is node.dtype else Cast(read, node.dtype)

    return transform(e, rule)


def _wanted(stages: Sequence[Stage], targets: Collection[str]) -> list[Stage]:
    """Those that something which leaves depends on."""
    names = set(targets)
    found: list[Stage] = []
    for stage in reversed(stages):
        if stage.target.name in names:
            names |= names_read(stage)
            found.append(stage)
    return found[::-1]


def _folded(stages: Sequence[Stage], weights: set[str], targets: Collection[str]) -> list[Stage]:
    """Stages over weights alone, or over indices: known when weights are bound."""
    known = set(weights)
    found: list[Stage] = []
    for stage in stages:
        if stage.target.name not in targets and names_read(stage) <= known:
            known.add(stage.target.name)
            found.append(stage)
    return found

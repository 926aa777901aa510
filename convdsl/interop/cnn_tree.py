"""The layers of a graph as a tree of scopes, read off their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from convdsl.interop.cnn_model import calls_again, computed_operands, owned_operands
from convdsl.interop.cnn_terms import infix
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ops import activation

Path: TypeAlias = tuple[str, ...]


class Untidy(Exception):
    """The names form no tree whose scopes have one way in."""


@dataclass(eq=False)
class Leaf:
    """An operator. `label` is the last part of its name, if it has weights of its own; `layer` the
    first call of a layer that is called more than once."""

    node: OpNode
    label: str | None
    layer: OpNode | None = None

    @property
    def inputs(self) -> list[Value]:
        data = [v for v in self.node.data_inputs if not isinstance(v.node, StateNode)]
        return [*data, *(self.node.inputs[name] for name in computed_operands(self.node))]

    @property
    def outputs(self) -> Sequence[Value]:
        return self.node.outputs

    @property
    def flow(self) -> Value | None:
        """What an arrow leads into the operator: the first operand of those not written infix."""
        if infix(self.node) is not None or len(self.node.data_inputs) != 1:
            return None
        return self.inputs[0] if self.inputs else None

    @property
    def exit(self) -> Value:
        return self.node.outputs[0]


@dataclass(eq=False)
class Scope:
    """Operators and scopes, in order, whose names begin alike."""

    label: str
    parent: Scope | None
    items: list[Leaf | Scope] = field(default_factory=list)
    entry_value: Value | None = None
    exit_values: tuple[Value, ...] = ()
    counts: Counter[Value] = field(default_factory=Counter)

    @property
    def entry(self) -> Value:
        assert self.entry_value is not None
        return self.entry_value

    @property
    def exit(self) -> Value:
        return self.exit_values[0]

    @property
    def ends_in_result(self) -> bool:
        """Whether the one value that leaves it is made last, so that nothing need name it."""
        return len(self.exit_values) == 1 and self.exit in self.items[-1].outputs

    @property
    def flow(self) -> Value:
        return self.entry

    @property
    def outputs(self) -> Sequence[Value]:
        return self.exit_values

    @property
    def height(self) -> int:
        return 1 + max((i.height for i in self.items if isinstance(i, Scope)), default=0)

    @property
    def title(self) -> str:
        """A name for a block: the scope's own, or of what it is one of several."""
        own = re.sub(r"[^A-Za-z_]+", "", self.label).strip("_")
        if own:
            return own.lower()
        above = self.parent
        base = re.sub(r"[^A-Za-z_]+", "", above.label if above else "").strip("_").lower()
        return f"{base.removesuffix('s') or 'part'}_block" if base != "blocks" else "block_unit"

    def uses(self, value: Value) -> int:
        return self.counts[value]

    def leaves(self) -> Iterator[Leaf]:
        for item in self.items:
            if isinstance(item, Scope):
                yield from item.leaves()
            else:
                yield item

    def descendants(self) -> Iterator[Scope]:
        for item in self.items:
            if isinstance(item, Scope):
                yield item
                yield from item.descendants()


Item: TypeAlias = "Leaf | Scope"


def _trails(node: OpNode) -> bool:
    """Whether it belongs to the layers before it, where a scope ends: an activation, the sum of a
    residual block."""
    return node.op in activation.OPERATORS or infix(node) is not None


def tree(graph: Graph, flat: bool) -> Scope:
    """All operators by scope. Raises Untidy unless `flat`, which makes one scope of all."""
    root = Scope("", None)
    again = calls_again(graph)
    layers = again | {node: node for node in again.values()}
    if flat:
        for node in graph.op_nodes():
            is_own = bool(owned_operands(node)) and node not in layers
            label = node.name.replace(".", "_") if is_own else None
            root.items.append(Leaf(node, label, layers.get(node)))
    else:
        _grow(graph, root, layers)
        scopes = {item.label for item in root.items if isinstance(item, Scope)}
        if any(first.name.partition(".")[0] in scopes for first in layers.values()):
            raise Untidy  # a layer of a scope that is called outside of it, too
    _connect(graph, root)
    return root


def _grow(graph: Graph, root: Scope, layers: Mapping[OpNode, OpNode]) -> None:
    """A layer that is called more than once stands where it is called, in no scope of its own."""
    nodes = graph.op_nodes()
    own = {n for n in nodes if owned_operands(n) and n not in layers}
    weighted = [tuple(n.name.split(".")) if n in own else None for n in nodes]
    if _all_have_scopes(nodes, weighted):
        weighted = [tuple(n.name.split(".")) for n in nodes]
    open_scopes: list[Scope] = [root]
    closed: set[Path] = set()
    for number, node in enumerate(nodes):
        path = weighted[number]
        if path is None:
            here = _place(node, nodes, weighted, number, open_scopes)
            label = None
        else:
            here, label = path[:-1], path[-1] if node in own else None
        _open(open_scopes, here, closed)
        open_scopes[-1].items.append(Leaf(node, label, layers.get(node)))


def _all_have_scopes(nodes: Sequence[OpNode], weighted: Sequence[Path | None]) -> bool:
    """Whether operators without weights are named by their scopes too, as our exports do."""
    scopes = {path[:depth] for path in weighted if path for depth in range(1, len(path))}
    plain = [n.name for n, path in zip(nodes, weighted, strict=True) if path is None]
    return any(tuple(name.split(".")[:-1]) in scopes for name in plain)


def _place(
    node: OpNode,
    nodes: Sequence[OpNode],
    weighted: Sequence[Path | None],
    number: int,
    open_scopes: Sequence[Scope],
) -> Path:
    """The scope of an operator without weights: that of what comes before, or what is common to
    it and what comes next."""
    current = tuple(scope.label for scope in open_scopes[1:])
    following = next((p[:-1] for p in weighted[number:] if p is not None), ())
    common: list[str] = []
    for a, b in zip(current, following, strict=False):
        if a != b:
            break
        common.append(a)
    if tuple(common) == current or not _trails(node):
        return tuple(common)
    inside = {leaf.node.id for leaf in open_scopes[-1].leaves()}
    own = [v for v in node.data_inputs if not isinstance(v.node, StateNode)]
    if any(v.node.id in inside for v in own):
        if len(own) > 1 and not any(_made_before(v, open_scopes[-1]) for v in own):
            return tuple(common)
        if len(own) == 1 or len(current) == 1 or current[-1].isdigit():
            return current
        return current[:-1]
    return current[:-1] if current[:-1] >= tuple(common) else tuple(common)


def _made_before(value: Value, scope: Scope) -> bool:
    return all(leaf.node is not value.node for leaf in scope.leaves())


def _open(stack: list[Scope], path: Path, closed: set[Path]) -> None:
    """Close and open scopes until `path` is the innermost. A closed one is never reopened."""
    current = tuple(scope.label for scope in stack[1:])
    shared = 0
    while shared < min(len(current), len(path)) and current[shared] == path[shared]:
        shared += 1
    for depth in range(len(current), shared, -1):
        closed.add(current[:depth])
        stack.pop()
    for depth in range(shared, len(path)):
        if path[: depth + 1] in closed:
            raise Untidy
        scope = Scope(path[depth], stack[-1])
        stack[-1].items.append(scope)
        stack.append(scope)


def _connect(graph: Graph, root: Scope) -> None:
    """Find each scope's way in and ways out, and how often values are used where they are made."""
    outputs = list(graph.outputs.values())
    for scope in [root, *root.descendants()]:
        inside = {leaf.node.id for leaf in scope.leaves()}
        if scope is not root:
            entries = {v for leaf in scope.leaves() for v in leaf.inputs if v.node.id not in inside}
            exits = [
                value
                for leaf in scope.leaves()
                for value in leaf.outputs
                if value in outputs or any(u.id not in inside for u, _ in graph.users(value))
            ]
            if len(entries) != 1 or not exits:
                raise Untidy
            (scope.entry_value,), scope.exit_values = entries, tuple(exits)
    for scope in [root, *root.descendants()]:
        scopes = {item.label for item in scope.items if isinstance(item, Scope)}
        if any(isinstance(item, Leaf) and item.label in scopes for item in scope.items):
            raise Untidy  # `fc`, and `fc.bias` that is no layer's
        for item in scope.items:
            needed = {item.entry: 1} if isinstance(item, Scope) else Counter(item.inputs)
            scope.counts.update(needed)
        for value in scope.exit_values:
            scope.counts[value] += 2
    for value in outputs:
        root.counts[value] += 2

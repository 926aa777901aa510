"""Fusion: elementwise work joins the kernel of what precedes it, and reductions of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from convdsl.ir.classify import OpClass, classify, reads_in_place, reduces_whole
from convdsl.ir.graph import Graph, OpNode, Value
from convdsl.ir.rules import arithmetic_of
from convdsl.ir.timing import bound_nodes
from convdsl.kernel.expr import TensorExpr
from convdsl.passes.rewrite import Pass
from convdsl.tensor import provably

# What a group may start with, in order of preference where a map could join several.
_ROOTS = (OpClass.MAP, OpClass.REDUCTION, OpClass.WINDOW, OpClass.CONTRACTION)


@dataclass(frozen=True)
class FuseElementwise(Pass):
    """Group each map with the operator that makes its operand.

    A group is a root and maps, each reading a value of the group at its own position. What others
    read too, or the model puts out, is stored on the way. Other operands, a residual say, are
    computed before; a map joins no group that they wait for, so that groups never wait for each
    other. Maps that nobody else reads come along: momentum that decays before a gradient is added.
    Groups of nothing but maps that a map reads become one: Adam's two means meet in a quotient.
    It saves reading the operand, and storing it where nobody else reads it; nothing is lost, since
    kernels run one after the other, each on all threads. `longest` bounds the operators of a group.

    A reduction of what maps or a contraction compute joins them too: partial sums are taken where
    the values are made, and combined in the end. That pays where the values would not stay in a
    cache: from so many `elements` on (a megabyte of f32).
    """

    name: ClassVar[str] = "fuse-elementwise"
    longest: int = 32
    elements: int = 1 << 18

    def run(self, graph: Graph) -> int:
        bound = bound_nodes(graph)
        groups = _Groups(graph, self.longest, self.elements)
        for node in graph.op_nodes():
            node.group = None
            if node.id not in bound:
                groups.place(node)
        return groups.number()


@dataclass(slots=True)
class _Group:
    """Operators that run as one so far, and the groups that read from it."""

    kind: OpClass
    nodes: list[OpNode]
    readers: list[_Group] = field(default_factory=list["_Group"])
    maps: bool = True  # and nothing else


class _Groups:
    """Groups as they grow, node by node in topological order."""

    def __init__(self, graph: Graph, longest: int, elements: int) -> None:
        self._graph = graph
        self._longest = longest
        self._elements = elements
        self._home: dict[int, _Group] = {}  # by id of the node
        self._number: dict[int, int] = {}  # in which order they were placed
        self._kinds: dict[int, tuple[TensorExpr, OpClass]] = {}  # by identity, of what stays

    def place(self, node: OpNode) -> None:
        """Add the node to the best group that it can join, or start one. What waits for other ranks
        stays alone."""
        if node.op.exchanges:
            read = _distinct([h for v in node.inputs.values() if (h := self._home.get(v.node.id))])
            self._found(node, _Group(OpClass.MOVEMENT, [node], maps=False), read)
            return
        expr = arithmetic_of(node.call)
        kind = self._kind(expr)
        found = {v.node.id: self._home.get(v.node.id) for v in node.inputs.values()}
        read = _distinct([group for group in found.values() if group is not None])
        joined = [group for group in read if self._joins(node, expr, kind, group, read)]
        if joined:
            group = max(joined, key=lambda group: self._preference(node, group))
            for other in [other for other in joined if other is not group]:
                if self._meets(node, other, group):
                    self._absorb(other, group)
                    read.remove(other)
            group.nodes.append(node)
            group.maps = group.maps and kind is OpClass.MAP
            for other in [other for other in read if other is not group]:
                if self._comes_along(node, expr, other, group):
                    self._absorb(other, group)
                    read.remove(other)
        else:
            group = _Group(kind, [node], maps=kind is OpClass.MAP)
        self._found(node, group, read)

    def _kind(self, expr: TensorExpr) -> OpClass:
        if id(expr) not in self._kinds:
            self._kinds[id(expr)] = expr, classify(expr)
        return self._kinds[id(expr)][1]

    def _found(self, node: OpNode, group: _Group, read: list[_Group]) -> None:
        """Note where a node is, and which other groups its group reads."""
        self._home[node.id] = group
        self._number[node.id] = len(self._number)
        for other in read:
            if other is not group:
                other.readers.append(group)

    def _meets(self, node: OpNode, other: _Group, group: _Group) -> bool:
        """Whether two groups of nothing but maps, over the node's positions, can be one: neither
        waits for the other. What others read of them is stored on the way."""
        if not (other.maps and group.maps) or len(group.nodes) + len(other.nodes) >= self._longest:
            return False
        members = (*group.nodes, *other.nodes)
        shapes = {value.type.shape for member in members for value in member.outputs}
        alike = group.kind is other.kind is OpClass.MAP and shapes == {node.outputs[0].type.shape}
        return alike and id(other) not in _after(group) and id(group) not in _after(other)

    def _comes_along(self, node: OpNode, expr: TensorExpr, other: _Group, group: _Group) -> bool:
        """Whether maps serve this node alone, at each of its positions: then they need not be
        stored."""
        if not other.maps or len(group.nodes) + len(other.nodes) > self._longest:
            return False
        if self._number[other.nodes[0].id] < self._number[group.nodes[0].id]:
            return False  # the root stands first
        members = {member.id for member in other.nodes}
        shape = node.output.type.shape
        for value in (value for member in other.nodes for value in member.outputs):
            users = [user for user, _ in self._graph.users(value)]
            if self._graph.is_result(value) or value.type.shape != shape:
                return False
            if any(user is not node and user.id not in members for user in users):
                return False
        inner = [k for k, v in node.inputs.items() if v.node.id in members]
        return all(reads_in_place(expr, operand) for operand in inner)

    def _absorb(self, other: _Group, group: _Group) -> None:
        """All of another group into this one, which does not wait for it otherwise."""
        group.nodes += other.nodes
        for member in other.nodes:
            self._home[member.id] = group
            for value in member.inputs.values():
                maker = self._home.get(value.node.id)
                if maker is not None and maker is not group:
                    maker.readers.append(group)
        group.readers += [reader for reader in other.readers if reader is not group]

    def number(self) -> int:
        """Set the groups of nodes that are not alone; how many joined another."""
        joined = 0
        for group in _distinct(list(self._home.values())):
            if len(group.nodes) > 1:
                joined += len(group.nodes) - 1
                for node in group.nodes:
                    node.group = group.nodes[0].id
        return joined

    def _joins(
        self, node: OpNode, expr: TensorExpr, kind: OpClass, group: _Group, read: list[_Group]
    ) -> bool:
        """Whether the node may join: it reads the group in place, or reduces what that computes,
        and waits for nothing that waits for the group."""
        if group.kind not in _ROOTS or len(group.nodes) >= self._longest:
            return False
        inner = {k: v for k, v in node.inputs.items() if self._home.get(v.node.id) is group}
        if kind is OpClass.MAP:
            fits = all(reads_in_place(expr, operand) for operand in inner)
        else:
            fits = kind is OpClass.REDUCTION and self._ends(expr, inner, group)
        if not fits:
            return False
        others = {id(other) for other in read if other is not group}
        return not others or others.isdisjoint(_after(group))

    def _ends(self, expr: TensorExpr, inner: Mapping[str, Value], group: _Group) -> bool:
        """Whether it reduces large values of a group that begins with maps or a contraction."""
        elements = [value.type.elements for value in inner.values()]
        return (
            group.kind in (OpClass.MAP, OpClass.CONTRACTION)
            and all(provably(">=", count, self._elements) for count in elements)
            and reduces_whole(expr, inner.keys())
        )

    def _preference(self, node: OpNode, group: _Group) -> tuple[bool, int, int]:
        """First groups whose value nobody else wants: it need not be stored."""
        inner = [v for v in node.inputs.values() if self._home.get(v.node.id) is group]
        alone = all(
            not self._graph.is_result(value)
            and all(self._is_own(user, node, group) for user, _ in self._graph.users(value))
            for value in inner
        )
        return alone, _ROOTS.index(group.kind), max(value.node.id for value in inner)

    def _is_own(self, user: OpNode, node: OpNode, group: _Group) -> bool:
        return user is node or self._home.get(user.id) is group


def _distinct(groups: list[_Group]) -> list[_Group]:
    return list({id(group): group for group in groups}.values())


def _after(group: _Group) -> set[int]:
    """The groups, by identity, that wait for this one."""
    found: set[int] = set()
    pending = [group]
    while pending:
        for reader in pending.pop().readers:
            if id(reader) not in found:
                found.add(id(reader))
                pending.append(reader)
    return found

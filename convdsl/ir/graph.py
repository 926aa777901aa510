"""The graph of operators: typed nodes and values (nodes.py) on a networkx DiGraph.

Edges run from producer to reader; which operands they are says the reader. Ids grow with
insertion; traversal is topological and, among equals, by id, hence deterministic. Edges are
networkx's from the first question on: a graph which is only built and reported costs what its
nodes do (ADR 243).
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from convdsl.appearance import Shown
from convdsl.diagnostics import Frame, InputError, Span
from convdsl.ir.nodes import InputNode, Node, OpNode, StateNode, Value, copied, describe
from convdsl.ir.opdef import OpDef, OpError, Role
from convdsl.ir.rules import Rules
from convdsl.tensor import Dim, SymDim, TensorType, substitute

if TYPE_CHECKING:
    import networkx as nx


__all__ = ["Graph", "InputNode", "Node", "OpNode", "StateNode", "Value", "is_open"]


class Graph(Shown):
    """A mutable graph; inputs and outputs are ordered by name.

    `updates`: for keys of states, the value that replaces the state once all outputs and all
    these values are computed. Within a call a state has one value, its old one.
    """

    def __init__(self) -> None:
        self._nodes: dict[int, Node] = {}
        self._inputs: dict[int, InputNode] = {}  # of the nodes, by id
        self._states: dict[int, StateNode] = {}
        self._ascending = True  # every node has a greater id than its operands
        self._order: list[Node] | None = None  # topological, until the next change
        self._networkx: nx.DiGraph[Node] | None = None  # once asked for
        self._rules = Rules()
        self._next = 0
        self.outputs: dict[str, Value] = {}
        self.updates: dict[str, Value] = {}

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {value.type}" for name, value in self.inputs.items())
        outputs = ", ".join(f"{name} {value.type}" for name, value in self.outputs.items())
        return f"<Graph of {len(self.op_nodes())} operators: {inputs} -> {outputs}>"

    # Building

    def add_input(self, name: str, type: TensorType, span: Span | None = None) -> Value:
        node = InputNode(self._new_id(), name, span, ())
        return self._insert(node, (type,))[0]

    def add_state(
        self,
        name: str,
        type: TensorType,
        role: Role,
        init: str = "zeros",
        data: Any = None,
        span: Span | None = None,
        frames: tuple[Frame, ...] = (),
    ) -> Value:
        node = StateNode(self._new_id(), name, span, frames, role, init, data)
        return self._insert(node, (type,))[0]

    def apply(
        self,
        op: OpDef,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
        span: Span | None = None,
        frames: tuple[Frame, ...] = (),
    ) -> OpNode:
        """Add an operator. `attributes` are DSL values (defaults are filled in, then resolved);
        resolved ones resolve to themselves. Weights that `inputs` lacks are created under
        the keys that their specs say. Raises OpError where a rule objects."""
        types = {key: value.type for key, value in inputs.items()}
        applied = self._rules.apply(op, types, attributes or {})
        complete = dict(inputs)
        for spec in applied.states:  # weights stand behind data, in the order of the record
            given = complete.pop(spec.name, None)
            if given is None:
                given = self.add_state(
                    spec.key(name), spec.type, spec.role, spec.init, None, span, frames
                )
            complete[spec.name] = given
        node = OpNode(self._new_id(), name, span, frames, op, complete, applied.attributes)
        self._insert(node, applied.outputs)
        return node

    @property
    def newest(self) -> int:
        """The greatest id that a node was given."""
        return self._next

    def _new_id(self) -> int:
        self._next += 1
        return self._next

    def _insert(self, node: Node, types: tuple[TensorType, ...]) -> tuple[Value, ...]:
        node.outputs = tuple([Value(node, index, type) for index, type in enumerate(types)])
        self._order = None
        self._nodes[node.id] = node
        if isinstance(node, OpNode):
            for value in node.inputs.values():
                if value.node.id >= node.id:
                    self._ascending = False
        elif isinstance(node, InputNode):
            self._inputs[node.id] = node
        elif isinstance(node, StateNode):
            self._states[node.id] = node
        if self._networkx is not None:
            self._networkx.add_node(node)
            if isinstance(node, OpNode):
                self._networkx.add_edges_from((v.node, node) for v in node.inputs.values())
        return node.outputs

    @property
    def _edges(self) -> nx.DiGraph[Node]:
        """The nodes, with an edge from each to everyone that reads it."""
        if self._networkx is None:
            self._networkx = self._drawn()
        return self._networkx

    def _drawn(self) -> nx.DiGraph[Node]:
        """The same, from what every node reads."""
        import networkx as nx  # takes longer than elaborating most networks

        edges: nx.DiGraph[Node] = nx.DiGraph()
        edges.add_nodes_from(self._nodes.values())
        edges.add_edges_from(
            (value.node, node)
            for node in self._nodes.values()
            if isinstance(node, OpNode)
            for value in node.inputs.values()
        )
        return edges

    # Reading

    def nodes(self) -> list[Node]:
        """All nodes in topological order, by id among equals."""
        if self._order is None:
            if self._ascending:
                self._order = [node for _, node in sorted(self._nodes.items())]
            else:
                import networkx as nx

                by_id = attrgetter("id")
                self._order = list(nx.lexicographical_topological_sort(self._edges, key=by_id))
        return list(self._order)

    def op_nodes(self) -> list[OpNode]:
        return [node for node in self.nodes() if isinstance(node, OpNode)]

    @property
    def is_acyclic(self) -> bool:
        """True, unless a rewrite went wrong: by what nodes read, not by the edges that are kept."""
        import networkx as nx

        return nx.is_directed_acyclic_graph(self._drawn())

    @property
    def inputs(self) -> dict[str, Value]:
        """Model inputs by name, in order of declaration."""
        return {node.name: node.output for _, node in sorted(self._inputs.items())}

    @property
    def states(self) -> dict[str, StateNode]:
        """Weights, statistics and constants by key, in order of creation."""
        return {node.name: node for _, node in sorted(self._states.items())}

    def users(self, value: Value) -> list[tuple[OpNode, str]]:
        """(node, operand name) of every use by an operator, in id order."""
        found = [
            (node, key)
            for node in self._edges.successors(value.node)
            if isinstance(node, OpNode)
            for key, read in node.inputs.items()
            if read is value
        ]
        if len(found) > 1:
            found.sort(key=lambda item: (item[0].id, item[1]))
        return found

    def is_output(self, value: Value) -> bool:
        return value in self.outputs.values()

    @property
    def results(self) -> tuple[Value, ...]:
        """What a call leaves behind: the model outputs, then what replaces states."""
        return (*self.outputs.values(), *self.updates.values())

    def is_result(self, value: Value) -> bool:
        return self.is_output(value) or value in self.updates.values()

    def is_used(self, node: Node) -> bool:
        """Whether an operator reads the node, a call leaves it behind, or it is a state with an
        update."""
        updated = isinstance(node, StateNode) and node.name in self.updates
        return updated or any(self.users(v) or self.is_result(v) for v in node.outputs)

    def contributing(self) -> set[Node]:
        """The nodes that some result is computed from."""
        found: set[Node] = set()
        waiting: list[Node] = [value.node for value in self.results]
        while waiting:
            node = waiting.pop()
            if node in found:
                continue
            found.add(node)
            if isinstance(node, OpNode):
                waiting += [value.node for value in node.inputs.values()]
            elif isinstance(node, StateNode) and node.name in self.updates:
                waiting.append(self.updates[node.name].node)
        return found

    @property
    def idle_states(self) -> frozenset[str]:
        """Keys of states that no result is computed from."""
        used = self.contributing()
        return frozenset(name for name, node in self.states.items() if node not in used)

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: Node) -> bool:
        return self._nodes.get(node.id) is node

    # Rewriting

    def set_input(self, node: OpNode, operand: str, value: Value) -> None:
        """Rewire one operand."""
        edges, before = self._edges, node.inputs[operand].node
        self._order = None
        node.inputs[operand] = value
        if all(read.node is not before for read in node.inputs.values()):
            edges.remove_edge(before, node)
        edges.add_edge(value.node, node)
        self._ascending = self._ascending and value.node.id < node.id

    def replace_uses(self, old: Value, new: Value) -> None:
        """Every user of `old`, model outputs and updates included, reads `new` instead."""
        for node, operand in self.users(old):
            if node is not new.node:
                self.set_input(node, operand, new)
        for results in (self.outputs, self.updates):
            for name, value in results.items():
                if value is old:
                    results[name] = new

    def extend(self, node: OpNode, op: OpDef) -> None:
        """Let a node be an operator that puts out the same and, after it, more. Its values stay."""
        node.op = op
        types = op.infer(node.call)
        made = enumerate(types[len(node.outputs) :], len(node.outputs))
        node.outputs += tuple(Value(node, index, type) for index, type in made)

    def remove(self, node: Node) -> None:
        """Remove a node that nothing uses."""
        if self.is_used(node):
            raise ValueError(f"{node.name} is still used")
        self._order = None
        self._edges.remove_node(node)
        for nodes in (self._nodes, self._inputs, self._states):
            nodes.pop(node.id, None)

    # Copies

    def bind(self, bindings: Mapping[str, Dim]) -> Graph:
        """A copy with symbols replaced in every type; shapes are inferred anew. Raises InputError
        for sizes that an operator objects to: too small ones."""
        new = Graph()
        new._rules = self._rules
        values: dict[Value, Value] = {}
        for node in self.nodes():
            new._next = node.id - 1
            if isinstance(node, InputNode):
                made = (new.add_input(node.name, node.type.bind(bindings), node.span),)
            elif isinstance(node, StateNode):
                type = node.type.bind(bindings)
                made = (
                    new.add_state(
                        node.name, type, node.role, node.init, node.data, node.span, node.frames
                    ),
                )
            else:
                assert isinstance(node, OpNode)
                inputs = {key: values[value] for key, value in node.inputs.items()}
                attributes = {k: _bind_attribute(v, bindings) for k, v in node.attributes.items()}
                try:
                    copy = new.apply(
                        node.op,
                        inputs,
                        attributes,
                        name=node.name,
                        span=node.span,
                        frames=node.frames,
                    )
                except OpError as error:
                    sizes = ", ".join(f"{name} = {size}" for name, size in bindings.items())
                    message = f"{node.name} does not go with {sizes}: {error.message}"
                    raise InputError(message) from error
                copy.group = node.group
                made = copy.outputs
            values.update(zip(node.outputs, made, strict=True))
        new._next = self._next
        new.outputs = {name: values[value] for name, value in self.outputs.items()}
        new.updates = {key: values[value] for key, value in self.updates.items()}
        return new

    def copy(self) -> Graph:
        """The same, to be changed: types and attributes are taken as they are."""
        new = Graph()
        new._rules = self._rules
        values: dict[Value, Value] = {}
        for node in self.nodes():
            types = tuple([value.type for value in node.outputs])
            values.update(zip(node.outputs, new._insert(copied(node, values), types), strict=True))
        new._next = self._next
        new.outputs = {name: values[value] for name, value in self.outputs.items()}
        new.updates = {key: values[value] for key, value in self.updates.items()}
        return new

    def to_networkx(self) -> nx.MultiDiGraph:
        """A copy for users: nodes by name, with kind, operator, attributes, shapes, dtypes, costs
        and source location, states with the name of what replaces them; edges with the operand
        they feed and the shape they carry."""
        import networkx as nx

        public: nx.MultiDiGraph = nx.MultiDiGraph()
        for node in self.nodes():
            public.add_node(node.name, **describe(node))
        for key, value in self.updates.items():
            public.nodes[key]["update"] = value.name
        for node in self.op_nodes():
            for operand, value in node.inputs.items():
                shape = value.type.shape
                public.add_edge(value.node.name, node.name, key=operand, shape=shape)
        return public


def _bind_attribute(value: Any, bindings: Mapping[str, Dim]) -> Any:
    if isinstance(value, tuple):
        return tuple(_bind_attribute(item, bindings) for item in value)  # pyright: ignore[reportUnknownVariableType]
    return substitute(value, bindings) if isinstance(value, SymDim) else value


def is_open(attribute: Any) -> bool:
    """Whether an attribute holds sizes that are not known yet."""
    if isinstance(attribute, tuple | list):
        return any(map(is_open, attribute))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(attribute, SymDim)

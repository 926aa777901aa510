"""What every graph must satisfy, checked before and after each pass on request.

A violation is a bug of whoever built or rewrote the graph, never of a user.
"""

from __future__ import annotations

from collections import Counter

from convdsl.ir.classify import OpClass, classify, reduces_whole
from convdsl.ir.graph import Graph, Node, OpNode, StateNode, Value
from convdsl.ir.groups import CircularGroups, kernels_of
from convdsl.ir.opdef import Call, OpError, Role
from convdsl.ir.timing import bound_nodes


class GraphError(AssertionError):
    """A malformed graph."""


def verify(graph: Graph) -> None:
    """Raise GraphError unless the graph is well formed.

    Acyclic; names unique; outputs present; updates of states that may change, by values of their
    type; edges as the nodes' operands say; operands, attributes, weights and types as the
    operators' rules say; fusion groups closed.
    """
    _require(graph.is_acyclic, "the graph has a cycle")
    nodes = graph.nodes()
    _verify_names(graph, nodes)
    for name, value in graph.outputs.items():
        _verify_value(graph, value, f"output {name}")
    _verify_updates(graph)
    for node in nodes:
        if isinstance(node, OpNode):
            _verify_operands(graph, node)
            _verify_rules(node)
    _verify_edges(graph, nodes)
    _verify_groups(graph)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise GraphError(message)


def _verify_names(graph: Graph, nodes: list[Node]) -> None:
    counts = Counter(node.name for node in nodes if not _called_as_its_layer(graph, node))
    twice = sorted(name for name, count in counts.items() if count > 1)
    _require(not twice, f"several nodes are called {', '.join(twice)}")
    _require("" not in counts, "a node without a name")


def _called_as_its_layer(graph: Graph, node: Node) -> bool:
    """A weight whose key is the name of the layer that reads it (ADR 183)."""
    if not isinstance(node, StateNode):
        return False
    return any(layer.name == node.name for layer, _ in graph.users(node.output))


def _verify_value(graph: Graph, value: Value, what: str) -> None:
    node = value.node
    _require(node in graph, f"{what} reads {node.name}, which is not in the graph")
    same = value.index < len(node.outputs) and node.outputs[value.index] is value
    _require(same, f"{what} reads a value that {node.name} does not put out")


def _verify_updates(graph: Graph) -> None:
    states = graph.states
    for key, value in graph.updates.items():
        _require(key in states, f"there is no state {key} to be updated")
        state = states[key]
        _require(state.role is not Role.CONSTANT, f"the constant {key} is updated")
        _verify_value(graph, value, f"the update of {key}")
        same = value.type == state.type
        _require(same, f"{key}: {state.type} is updated by {value.name}: {value.type}")
        _require(not state.type.symbols(), f"{key} is updated and has no fixed size")


def _verify_operands(graph: Graph, node: OpNode) -> None:
    allowed = {o.name for o in node.op.operands if not o.variadic}
    for operand in node.op.operands:
        if operand.variadic:
            allowed.update(node.call.variadic(operand.name))
        elif not operand.optional:
            _require(operand.name in node.inputs, f"{node.name} lacks its operand {operand.name}")
    for key, value in node.inputs.items():
        _require(key in allowed, f"{node.op.name} {node.name} has no operand {key}")
        _verify_value(graph, value, f"{node.name}.{key}")


def _verify_edges(graph: Graph, nodes: list[Node]) -> None:
    edges = {
        (user.id, key): value
        for n in nodes
        for value in n.outputs
        for user, key in graph.users(value)
    }
    wanted = {
        (n.id, key): value
        for n in nodes
        if isinstance(n, OpNode)
        for key, value in n.inputs.items()
    }
    _require(edges == wanted, "edges and operands disagree")


def _verify_rules(node: OpNode) -> None:
    """Attributes resolve to themselves; weights and outputs have the types the rules give."""
    call, where = node.call, f"{node.op.name} {node.name}"
    names = {attribute.name for attribute in node.op.attributes}
    _require(set(call.attributes) == names, f"{where} has attributes {sorted(call.attributes)}")
    try:
        resolved = node.op.resolve(call)
        states = {spec.name: spec.type for spec in node.op.state(call)}
        outputs = Call(node.op, call.types, resolved).outputs
    except OpError as error:
        raise GraphError(f"{where}: {error.message}") from error
    _require(dict(resolved) == dict(call.attributes), f"{where} has unresolved attributes")
    owned = {o.name for o in node.op.operands if o.role is not Role.DATA} & set(node.inputs)
    _require(owned == set(states), f"{where} has weights {sorted(owned)}, not {sorted(states)}")
    for name, type in states.items():
        _require(node.inputs[name].type == type, f"{where}.{name} is not {type}")
    actual = tuple(value.type for value in node.outputs)
    _require(actual == outputs, f"{where} puts out {actual}, its rule says {outputs}")


def _verify_groups(graph: Graph) -> None:
    """A group is a root and maps, or reductions, that each read values of it, or are maps that it
    reads; none holds weight-time work, and they do not wait for each other in a circle."""
    groups: dict[int, list[OpNode]] = {}
    for node in graph.op_nodes():
        if node.group is not None:
            groups.setdefault(node.group, []).append(node)
    bound = bound_nodes(graph)
    for group, nodes in groups.items():
        what = f"group {group}"
        _require(not any(n.id in bound for n in nodes), f"{what} holds weight-time work")
        wanted = {value.node.id for node in nodes for value in node.inputs.values()}
        inside = {nodes[0].id}
        for node in nodes[1:]:
            read = [key for key, value in node.inputs.items() if value.node.id in inside]
            joins = bool(read) or node.id in wanted
            _require(joins, f"{node.name} stands in {what} and reads nothing of it")
            expr = node.call.kernel
            fits = classify(expr) is OpClass.MAP or (bool(read) and reduces_whole(expr, read))
            _require(fits, f"{node.name} stands in {what} and is no map, nor reduces what it makes")
            inside.add(node.id)
    try:
        kernels_of(graph)
    except CircularGroups as error:
        raise GraphError(str(error)) from error

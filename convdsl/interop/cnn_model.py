"""A model brought to what `.cnn` text can say: plain names, every layer with weights of its own."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from convdsl.diagnostics import InputError
from convdsl.ir.graph import Graph, OpNode, StateNode
from convdsl.ir.model import Model
from convdsl.ir.opdef import Role
from convdsl.ops import SPELLINGS
from convdsl.syntax.words import KEYWORDS


def _weights(node: OpNode) -> list[str]:
    return [o.name for o in node.op.operands if o.role is not Role.DATA and o.name in node.inputs]


def owned_operands(node: OpNode) -> list[str]:
    """The operands that are the operator's own weights."""
    return [name for name in _weights(node) if isinstance(node.inputs[name].node, StateNode)]


def computed_operands(node: OpNode) -> list[str]:
    """The operands that stand for weights and are tensors of the graph."""
    return [name for name in _weights(node) if not isinstance(node.inputs[name].node, StateNode)]


def calls_again(graph: Graph) -> dict[OpNode, OpNode]:
    """Layers that are called more than once: by each later call, the first one. They have the same
    operator, arguments and weights, all of them, and one input."""
    first: dict[tuple[Any, ...], OpNode] = {}
    again: dict[OpNode, OpNode] = {}
    for node in graph.op_nodes():
        owned = owned_operands(node)
        if not owned or computed_operands(node) or len(node.data_inputs) != 1:
            continue
        states = tuple((name, node.inputs[name].node.id) for name in owned)
        key = (node.op.name, repr(sorted(node.attributes.items())), states)
        if key in first:
            again[node] = first[key]
        first.setdefault(key, node)
    return again


def own_keys(node: OpNode, layer: str) -> dict[str, str]:
    """The keys that text makes of an operator's own weights, by operand, where it is called so."""
    keys = {spec.name: spec.key(layer) for spec in node.op.state(node.call)}
    return {operand: keys[operand] for operand in owned_operands(node)}


def flat_keys(graph: Graph) -> dict[str, str]:
    """Keys without scopes: `layer1_0_conv1.weight` for `layer1.0.conv1.weight`."""
    again = calls_again(graph)
    return {
        node.inputs[operand].node.name: key
        for node in graph.op_nodes()
        if node not in again
        for operand, key in own_keys(node, node.name.replace(".", "_")).items()
    }


def sayable(model: Model) -> Model:
    """The same network as text has it. Raises InputError where there is no such text."""
    return _with_plain_names(_with_own_weights(model))


def _with_own_weights(model: Model) -> Model:
    """Layers that share a weight and are no calls of one layer, or have one of another name, get a
    copy under their own.

    Raises InputError where running statistics are computed.
    """
    graph, weights = model.graph.bind({}), dict(model.weights or {})
    again = calls_again(graph)
    for node in graph.op_nodes():
        _check_computed(node)
        if node in again:
            for operand in owned_operands(node):
                graph.set_input(node, operand, again[node].inputs[operand])
            continue
        for operand, key in own_keys(node, node.name).items():
            state = node.inputs[operand].node
            assert isinstance(state, StateNode)
            if state.name == key:
                continue
            own = graph.add_state(
                key, state.type, state.role, state.init, state.data, state.span, state.frames
            )
            graph.set_input(node, operand, own)
            if state.name in weights:
                weights[key] = weights[state.name]
    for key, state in graph.states.items():
        if not graph.is_used(state):
            graph.remove(state)
            weights.pop(key, None)
    return replace(model, graph=graph, weights=weights)


def _check_computed(node: OpNode) -> None:
    roles = {operand.name: operand.role for operand in node.op.operands}
    for name in computed_operands(node):
        if roles[name] is not Role.PARAMETER:
            maker = node.inputs[name].node.name
            raise InputError(
                f"{name} of {node.name} is computed, by {maker}, "
                "which .cnn text cannot say of running statistics"
            )


def _with_plain_names(model: Model) -> Model:
    """Model, inputs and outputs called by words that mean nothing else; `model` is a copy."""
    graph, taken = model.graph, {*KEYWORDS, *SPELLINGS, "in", "out", "inf", "nan"}
    layers = [node.name for node in graph.op_nodes() if owned_operands(node)]
    taken |= {name.partition(".")[0] for name in layers} | {n.replace(".", "_") for n in layers}
    is_plain = model.name not in {*KEYWORDS, *SPELLINGS}
    model = replace(model, name=model.name if is_plain else f"{model.name}_net")
    renamed: dict[str, str] = {}
    for name, value in graph.inputs.items():
        renamed[name] = value.node.name = _word(name, taken)
    taken = {*KEYWORDS, *renamed.values()}
    graph.outputs = {_word(name, taken): value for name, value in graph.outputs.items()}
    declared = model.preprocessing
    if declared is None:
        return model
    return replace(model, preprocessing=replace(declared, input=renamed[declared.input]))


def _word(name: str, taken: set[str]) -> str:
    plain = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
    plain = plain if plain[:1].isalpha() else f"t{plain}"
    found, count = plain, 1
    while found in taken:
        count += 1
        found = f"{plain}_{count}"
    taken.add(found)
    return found

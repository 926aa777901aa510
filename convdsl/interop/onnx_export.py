"""A graph and its weights as an ONNX model. Symbols become named dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import onnx
from numpy.typing import NDArray
from onnx import helper

from convdsl.diagnostics import InputError
from convdsl.interop.correspondence import row_of
from convdsl.interop.element_types import TO_ONNX
from convdsl.interop.metadata import metadata
from convdsl.interop.spelling import Spelling, Writer
from convdsl.ir.graph import Graph, OpNode, StateNode, Value
from convdsl.ir.model import Model
from convdsl.tensor import TensorType

OPSET, IR_VERSION = 23, 11

LARGEST = 2**31 - 1
"""Bytes that one ONNX file can hold."""


def export(model: Model, arrays: Mapping[str, NDArray[Any]], producer: str) -> onnx.ModelProto:
    """The network with its weights (`arrays`, by name), checked. Raises InputError."""
    try:
        proto = helper.make_model(
            _graph(model.graph, arrays, model.name),
            opset_imports=[helper.make_opsetid("", _opset(model.graph))],
            ir_version=IR_VERSION,
            producer_name="convdsl",
            producer_version=producer,
        )
        helper.set_model_props(proto, metadata(model))
        if proto.ByteSize() > LARGEST:
            raise InputError(f"{model.name} is larger than the 2 GiB that an ONNX file can hold")
    except ValueError as error:  # protobuf: a message of more than 2 GiB
        raise InputError(f"{model.name} cannot become an ONNX file: {error}") from error
    cast(Any, onnx.checker).check_model(proto, full_check=True)
    return proto


def _opset(graph: Graph) -> int:
    """The newest in which every node is one that others run."""
    rows = {row_of(node.op, node.name) for node in graph.op_nodes()}
    return min([OPSET, *(row.newest for row in rows if row.newest is not None)])


class _Names:
    """The tensor that each value is. A model output is called as the output."""

    def __init__(self, graph: Graph) -> None:
        self.by_value: dict[Value, str] = {}
        self.repeated: dict[str, Value] = {}  # outputs that are copies of something named already
        for name, value in graph.inputs.items():
            self.by_value[value] = name
        for name, node in graph.states.items():
            self.by_value[node.output] = name
        for name, value in graph.outputs.items():
            if value in self.by_value or name in self.by_value.values():
                self.repeated[name] = value
            else:
                self.by_value[value] = name

    def taken(self) -> set[str]:
        return {*self.by_value.values(), *self.repeated}


def _graph(graph: Graph, arrays: Mapping[str, NDArray[Any]], name: str) -> onnx.GraphProto:
    names = _Names(graph)
    clash = set(graph.outputs) & (set(graph.inputs) | set(graph.states))
    if clash:
        raise InputError(f"ONNX wants different names for inputs and outputs, not {min(clash)}")
    writer = Writer(names.taken())
    writer.symbols_from({key: value.type.shape for key, value in graph.inputs.items()})
    used = {value.node.id for node in graph.op_nodes() for value in node.inputs.values()}
    used |= {value.node.id for value in graph.outputs.values()}
    for node in graph.nodes():
        if isinstance(node, StateNode) and node.id in used:
            writer.initialiser(node.name, arrays[node.name])
        elif isinstance(node, OpNode):
            _write_node(writer, names, node)
    for output, value in names.repeated.items():
        writer.node("Identity", [names.by_value[value]], [output], output)
    return helper.make_graph(
        writer.nodes,
        name,
        [_value_info(key, value.type) for key, value in graph.inputs.items()],
        [_value_info(key, value.type) for key, value in graph.outputs.items()],
        writer.initialisers,
    )


def _write_node(writer: Writer, names: _Names, node: OpNode) -> None:
    """Spell the call; what its last nodes put out is called as the values are."""
    operands = {key: names.by_value[value] for key, value in node.inputs.items()}
    first = len(writer.nodes)
    made = spell(Spelling(writer, node.call, operands, node.name))
    renamed: dict[str, str] = {}
    for value, tensor in zip(node.outputs, made, strict=True):
        wanted = names.by_value.get(value)
        if wanted is None:
            wanted = names.by_value[value] = writer.unused(value.name)
        renamed[tensor] = wanted
    for proto in writer.nodes[first:]:
        for field in (proto.input, proto.output):
            for index, tensor in enumerate(field):
                field[index] = renamed.get(tensor, tensor)
    writer.nodes[-1].name = node.name


def spell(s: Spelling) -> list[str]:
    """Add the nodes of one call to its writer; returns the names of the outputs."""
    names = row_of(s.call.op, s.name).spell(s)
    return [names] if isinstance(names, str) else list(names)


def _value_info(name: str, type: TensorType) -> onnx.ValueInfoProto:
    shape = [size if isinstance(size, int) else str(size) for size in type.shape]
    return helper.make_tensor_value_info(name, TO_ONNX[type.dtype], shape)

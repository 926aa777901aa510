"""The nodes of a file and of the branches inside them: what they use, and which are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

import onnx

from convdsl.diagnostics import InputError

BRANCHES, LOOP, SCAN = "If", "Loop", "Scan"
"""Kinds of nodes that hold graphs: one of two is chosen, or one is gone through many times."""


def branches(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The graphs inside a node."""
    return [
        graph
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph, and those of the graphs inside them."""
    pending = [graph]
    while pending:
        for node in pending.pop().node:
            yield node
            pending += branches(node)


def tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor that is stored in a file."""
    yield from proto.graph.initializer
    for node in all_nodes(proto.graph):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for graph in branches(node):
            yield from graph.initializer


def used(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that the graphs inside it read among them."""
    yield from node.input
    for graph in branches(node):
        yield from (output.name for output in graph.output)
        for inner in all_nodes(graph):
            yield from inner.input
            for deeper in branches(inner):
                yield from (output.name for output in deeper.output)


def needed(graph: onnx.GraphProto) -> list[tuple[int, onnx.NodeProto]]:
    """The nodes that the outputs follow from, with their numbers, in the file's order."""
    wanted = {output.name for output in graph.output}
    found: list[tuple[int, onnx.NodeProto]] = []
    for number in range(len(graph.node) - 1, -1, -1):
        node = graph.node[number]
        if any(name and name in wanted for name in node.output):
            found.append((number, node))
            wanted.update(used(node))
    return found[::-1]


def narrowed(proto: onnx.ModelProto, source: str, outputs: Sequence[str]) -> onnx.ModelProto:
    """The model with other outputs, which may be any tensors in it, and the inputs that these
    follow from. Raises InputError where there is no such tensor."""
    graph = proto.graph
    made = {name for node in graph.node for name in node.output if name}
    made |= {info.name for info in graph.input}
    types = {info.name: info for info in (*graph.value_info, *graph.input, *graph.output)}
    chosen = onnx.ModelProto()
    chosen.CopyFrom(proto)
    del chosen.graph.output[:]
    for name in dict.fromkeys(outputs):
        if name not in made:
            close = get_close_matches(name, made, n=1, cutoff=0.6)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"{source} computes no {name}{hint}")
        chosen.graph.output.append(types.get(name, onnx.ValueInfoProto(name=name)))
    names = {output.name for output in chosen.graph.output}
    names.update(name for _, node in needed(chosen.graph) for name in used(node))
    inputs = [info for info in graph.input if info.name in names]
    del chosen.graph.input[:]
    chosen.graph.input.extend(inputs)
    return chosen

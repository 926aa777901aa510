"""Graphs of several nodes of any kinds that are read, joined at random.

A node is drawn alone (`drawn_nodes`); then some of its operands are taken from what the graph has
already, through Cast, Reshape, Tile and Slice where type or size differ. Values are worked out by
onnxruntime, node by node, while the graph grows: so sizes that data decide are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from op_cases.draw import Draw

from interop import drawn_arithmetic, drawn_views
from interop.drawn_nodes import draw_node
from interop.runtimes import run_onnxruntime

SPECIAL = (0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 1e-30)
STEPS = frozenset((
    "And", "ArgMax", "ArgMin", "Cast", "CastLike", "Ceil", "Equal", "Floor", "Greater",
    "GreaterOrEqual", "Hardmax", "IsInf", "IsNaN", "Less", "LessOrEqual", "Mod", "Not", "Or",
    "MaxPool", "QuantizeLinear", "Round", "Sign", "ThresholdedRelu", "TopK", "Where", "Xor",
    "Sin", "Cos", "Tan", "NonMaxSuppression", "OneHot", "GridSample",
))  # fmt: skip
"""Kinds where the last bit of an operand may change the result wholly: they take exact values."""
WITHOUT_ROUNDING = frozenset((*drawn_views.GENERATORS, "Relu", "Abs", "Neg", "Max", "Min",
                              "Identity", "Where", "Sign", "Floor", "Ceil", "Clip"))  # fmt: skip
"""Kinds whose results are exact where their operands are."""


@dataclass
class Drawn:
    """A graph, the arrays it is called with, and the kinds that it is made of."""

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    stored: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    values: dict[str, np.ndarray] = field(default_factory=dict)
    exact: set[str] = field(default_factory=set)
    kinds: list[str] = field(default_factory=list)

    def proto(self) -> onnx.ModelProto:
        """Outputs are what nobody reads; names of inputs keep their order."""
        read = {name for node in self.nodes for name in node.input}
        ends = [n for node in self.nodes for n in node.output if n not in read]
        return _model(self.nodes, self.inputs, self.stored, ends, self.opset)

    def add(self, kind: str, operands: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """A node on values that there are; raises what onnxruntime raises."""
        made = [f"v{len(self.nodes)}_{number}" for number in range(outputs)]
        node = helper.make_node(kind, operands, made, **attributes)
        known = {n: self.stored[n] for n in operands if n in self.stored}
        given = {n: self.values[n] for n in operands if n and n not in known}
        found = run_onnxruntime(_model([node], given, known, made, self.opset), given)
        self.nodes.append(node)
        self.values |= found
        if kind in WITHOUT_ROUNDING and all(n in self.exact or n in known for n in operands if n):
            self.exact |= set(made)
        return made

    def alone(self) -> Iterator[tuple[onnx.NodeProto, onnx.ModelProto, dict[str, np.ndarray]]]:
        """Each node as a graph of its own, with what onnxruntime gave to it."""
        for node in self.nodes:
            known = {n: self.stored[n] for n in node.input if n in self.stored}
            there = self.inputs | self.values
            given = {n: there[n] for n in node.input if n and n not in known}
            yield node, _model([node], given, known, list(node.output), self.opset), given

    def store(self, array: np.ndarray) -> str:
        name = f"c{len(self.stored)}"
        self.stored[name] = array
        return name

    def fitted(self, name: str, like: np.ndarray) -> str:
        """A value with the type and the sizes of another array."""
        if self.values[name].dtype != like.dtype:
            to = helper.np_dtype_to_tensor_dtype(like.dtype)
            (name,) = self.add("Cast", [name], to=to)
        x = self.values[name]
        if x.shape == like.shape:
            return name
        if x.size < like.size:
            (name,) = self.add("Reshape", [name, self.store(np.int64([-1]))])
            times = -(-like.size // x.size)
            (name,) = self.add("Tile", [name, self.store(np.int64([times]))])
        elif x.size > like.size:
            (name,) = self.add("Reshape", [name, self.store(np.int64([-1]))])
        if self.values[name].size > like.size:
            limits = [self.store(np.int64([limit])) for limit in (0, like.size, 0)]
            (name,) = self.add("Slice", [name, *limits])
        return self.add("Reshape", [name, self.store(np.int64(like.shape))])[0]


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, np.ndarray],
    stored: Mapping[str, np.ndarray],
    outputs: list[str],
    opset: int,
) -> onnx.ModelProto:
    given = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
        for n, a in inputs.items()
    ]
    kept = [numpy_helper.from_array(np.asarray(a), n) for n, a in stored.items()]
    ends = [onnx.ValueInfoProto(name=n) for n in outputs]
    graph = helper.make_graph(nodes, "net", given, ends, kept)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def draw_graph(kinds: list[str], opset: int, seed: int) -> Drawn:
    """Graph number `seed`: 3 to 12 nodes of the kinds given, besides those that join them."""
    d = Draw(seed, opset)
    drawn = Drawn(opset)
    for number in range(d.integer(3, 12)):
        kind = d.pick(*kinds)
        node = draw_node(kind, opset, 1000 * seed + number)
        before = len(drawn.nodes), dict(drawn.stored), dict(drawn.inputs)
        try:
            names = [
                _operand(drawn, d, kind, array, known=name in node.known)
                for name, array in node.operands.items()
            ]
            drawn.add(kind, names, node.outputs, **node.attributes)
            drawn.kinds.append(kind)
        except Exception:  # noqa: BLE001  onnxruntime's errors, which share no base: not this node
            del drawn.nodes[before[0] :]
            drawn.stored, drawn.inputs = before[1:]
            kept = {n for made in drawn.nodes for n in made.output} | drawn.inputs.keys()
            drawn.values = {n: a for n, a in drawn.values.items() if n in kept}
    return drawn


def _operand(drawn: Drawn, d: Draw, kind: str, array: np.ndarray | None, known: bool) -> str:
    """A constant, a new input, or what the graph has, made to fit."""
    if array is None:
        return ""
    array = np.asarray(array)
    if known:
        return drawn.store(array)
    real = array.dtype.kind in "fb" or kind in drawn_arithmetic.GENERATORS
    if real and d.chance(0.8) and array.size:
        fits = [
            name
            for name, value in drawn.values.items()
            if value.size and (kind not in STEPS or name in drawn.exact)
            and (value.dtype.kind == array.dtype.kind or name in drawn.exact)
        ]  # fmt: skip
        finite = array.dtype.kind == "f" or kind not in drawn_arithmetic.GENERATORS
        if fits and finite:
            return drawn.fitted(d.pick(*fits[-6:]), array)
    name = f"x{len(drawn.inputs)}"
    drawn.inputs[name] = drawn.values[name] = _at_the_edges(d, array)
    drawn.exact.add(name)
    return name


def _at_the_edges(d: Draw, array: np.ndarray) -> np.ndarray:
    """At times with zeros of both signs, infinities, NaN, huge and tiny numbers."""
    if array.dtype.kind != "f" or d.chance(0.8):
        return array
    special = d.rng.choice(np.asarray(SPECIAL), array.shape).astype(array.dtype)
    return np.where(d.rng.random(array.shape) < 0.1, special, array)

"""What draws a layer and builds its graph: sizes, weights, inputs, nodes of ONNX."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

Array: TypeAlias = "np.ndarray[Any, Any]"

OPSET = 21
ELEMENTS = 4 << 20  # of the largest tensor


@dataclass(frozen=True)
class Layer:
    """A layer and what it is fed."""

    family: str
    operator: str  # of ONNX, the first of the graph
    name: str  # what was drawn, in words
    proto: onnx.ModelProto
    feeds: Mapping[str, Array]

    @property
    def bytes(self) -> int:
        """Of inputs and weights; outputs are counted when they are known."""
        stored = sum(numpy_helper.to_array(t).nbytes for t in self.proto.graph.initializer)
        return stored + sum(x.nbytes for x in self.feeds.values())


class Draw:
    """Draws, and builds the graph of one layer."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.feeds: dict[str, Array] = {}
        self.words: list[str] = []

    # Values

    def pick(self, *items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def between(self, low: float, high: float) -> int:
        """A whole number, small ones as often as large ones by their logarithm."""
        return round(float(np.exp(self.rng.uniform(np.log(low), np.log(high)))))

    def channels(self, low: int = 3, high: int = 512) -> int:
        """As often a multiple of 16 as not."""
        found = self.between(low, high)
        return max(16, found // 16 * 16) if self.rng.random() < 0.5 and high >= 16 else found

    def batch(self) -> int:
        return self.pick(1, 1, 1, 2, 4)

    def sides(self, rank: int, others: int, low: int = 4, high: int = 160) -> list[int]:
        """Sizes of maps, about as large as fits beside the other axes; rarely square."""
        most = max(low, (ELEMENTS / max(others, 1)) ** (1 / rank))
        first = self.between(low, min(high, most))
        return [
            self.pick(first, max(low, first - 1), max(low, first * 3 // 4)) for _ in range(rank)
        ]

    def shape(self, rank: int) -> list[int]:
        """Of a tensor with between a sixteenth of the most elements and the most."""
        while True:
            found = [self.channels(2, 1500 // rank) for _ in range(rank)]
            found[0] = self.batch() if rank > 2 else found[0]
            if ELEMENTS / 16 <= prod(found) <= ELEMENTS:
                return found

    # The graph

    def input(self, shape: Sequence[int], name: str = "x") -> str:
        self.feeds[name] = np.asarray(self.rng.standard_normal(tuple(shape)), np.float32)
        self.words.append("x".join(map(str, shape)))
        return name

    def weight(self, shape: Sequence[int]) -> str:
        scale = 1 / np.sqrt(max(1, prod(shape[1:])))
        return self.constant((self.rng.standard_normal(tuple(shape)) * scale).astype("f4"))

    def constant(self, value: Any) -> str:
        name = f"c{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *operands: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"v{len(self.nodes)}_{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, operands, names, **attributes))
        return names[0]

    def say(self, **how: Any) -> None:
        self.words += [f"{name} {value}" for name, value in how.items() if value not in (None, 1)]

    def layer(self, family: str, outputs: Sequence[str]) -> Layer:
        made = [onnx.ValueInfoProto(name=name) for name in outputs]
        given = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in self.feeds.items()
        ]
        graph = helper.make_graph(self.nodes, "layer", given, made, self.stored)
        opsets = [helper.make_opsetid("", OPSET)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        typed = shape_inference.infer_shapes(proto)
        rank = next(iter(self.feeds.values())).ndim
        for value in typed.graph.output:
            if not value.type.tensor_type.HasField("shape"):  # a function's are not inferred
                shape = [None] * rank
                value.CopyFrom(
                    helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape)
                )
        return Layer(family, self.nodes[0].op_type, " ".join(self.words), typed, self.feeds)

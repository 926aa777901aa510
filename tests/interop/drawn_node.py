"""A drawn node, its model, and what drawing one takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from op_cases.draw import Draw


@dataclass
class Node:
    """A node: operands by name (None: left out), which of them the file stores, attributes."""

    kind: str
    operands: dict[str, np.ndarray | None]
    attributes: dict[str, Any]
    known: Sequence[str] = ()
    outputs: int = 1

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """What is given with a call."""
        return {
            name: array
            for name, array in self.operands.items()
            if array is not None and name not in self.known
        }

    def proto(self, opset: int) -> onnx.ModelProto:
        names = [name if array is not None else "" for name, array in self.operands.items()]
        outputs = [f"y{i}" for i in range(self.outputs)]
        stored = {name: self.operands[name] for name in self.known}
        graph = helper.make_graph(
            [helper.make_node(self.kind, names, outputs, **self.attributes)],
            "net",
            [
                helper.make_tensor_value_info(
                    name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
                )
                for name, array in self.arrays.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
        )
        opsets = [helper.make_opsetid("", opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


Generator = Callable[[str, Draw, int], Node]


def floats(d: Draw, shape: Sequence[int], low: float = -3.0, high: float = 3.0) -> np.ndarray:
    return d.rng.uniform(low, high, tuple(shape)).astype("f4")


def image(d: Draw, rank: int | None = None, least: int = 1) -> np.ndarray:
    return floats(d, (d.integer(1, 2), d.integer(1, 5), *(
        d.integer(least, 7) for _ in range(rank or d.integer(1, 2))
    )))  # fmt: skip


def axis_of(d: Draw, rank: int, opset: int, negative_since: int) -> int:
    axis = d.integer(0, rank - 1)
    return axis - rank if opset >= negative_since and d.chance(0.3) else axis

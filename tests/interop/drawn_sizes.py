"""Drawn graphs in which arithmetic of shapes decides what operators do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, I64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


class Drawn:
    """A graph as it is drawn: lists of one size each, computed from the sizes of x."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = int(self.pick(12, 13, 17, 21))
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.count = 0
        self.node("Shape", ["x"], name="shape")
        self.pool = [self.gathered("shape", axis) for axis in (0, 2, 3)]
        for _ in range(self.rng.integers(2, 7)):
            self.pool.append(self.pick(*STEPS)(self))
        made = self.pick(*USES)(self)
        self.output = self.node("Identity", [made], name="y")

    def pick(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def size(self) -> str:
        """A list of one size; the later, the likelier."""
        return self.pool[-1] if self.rng.random() < 0.5 else self.pick(*self.pool)

    def small(self) -> str:
        """A size between 1 and 4."""
        within = self.node("Mod", [self.size(), self.constant([4])])
        return self.node("Add", [within, self.constant([1])])

    def constant(self, values: Any, dtype: str = "i8") -> str:
        self.count += 1
        name = f"c{self.count}"
        self.weights[name] = np.asarray(values, dtype)
        return name

    def node(self, kind: str, inputs: list[str], name: str = "", **how: Any) -> str:
        self.count += 1
        name = name or f"v{self.count}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **how))
        return name

    def gathered(self, x: str, index: int) -> str:
        return self.node("Gather", [x, self.constant([index])], axis=0)

    def proto(self, elements: int = F) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", F, ["N", 2, "H", "W"])],
            [helper.make_tensor_value_info("y", elements, [])],
            [numpy_helper.from_array(a, name) for name, a in self.weights.items()],
        )
        del graph.output[0].type.tensor_type.shape.dim[:]
        opsets = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


# Arithmetic


def _binary(d: Drawn) -> str:
    kind = d.pick("Add", "Sub", "Mul", "Div", "Mod", "Min", "Max")
    if kind in ("Div", "Mod"):
        divisor = d.constant([d.pick(1, 2, 3, 4, 8, -2)])
        return d.node(kind, [d.size(), d.pick(divisor, d.small())])
    other = d.pick(d.size(), d.constant([d.pick(-3, -1, 0, 1, 2, 5)]))
    return d.node(kind, d.pick([d.size(), other], [other, d.size()]))


def _chosen(d: Drawn) -> str:
    """where(a < b, c, d)"""
    kind = d.pick("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual")
    other = d.pick(d.size(), d.constant([d.pick(0, 1, 4, 5)]))
    condition = d.node(kind, [d.size(), other])
    if d.rng.random() < 0.3:
        condition = d.node("Not", [condition])
    return d.node("Where", [condition, d.size(), d.pick(d.size(), d.constant([3]))])


def _scaled(d: Drawn) -> str:
    """A size times a factor, rounded, in floating-point numbers."""
    x = d.node("Cast", [d.size()], to=F)
    x = d.node(d.pick("Mul", "Div"), [x, d.constant([d.pick(0.5, 1.5, 2.0, 0.3, 3.0)], "f4")])
    x = d.node(d.pick("Floor", "Ceil", "Round"), [x]) if d.rng.random() < 0.8 else x
    return d.node("Cast", [x], to=I64)


def _to_multiple(d: Drawn) -> str:
    """What is missing to a multiple of k."""
    k = d.constant([d.pick(2, 4, 8)])
    rest = d.node("Mod", [d.size(), k])
    return d.node("Mod", [d.node("Sub", [k, rest]), k])


def _reduced(d: Drawn) -> str:
    both = d.node("Concat", [d.size(), d.size(), d.constant([2])], axis=0)
    if d.rng.random() < 0.3 and d.opset > 12:
        return d.node("ReduceSum", [both, d.constant([0])], keepdims=1)
    return d.node(d.pick("ReduceProd", "ReduceMax", "ReduceMin"), [both], keepdims=1)


def _moved(d: Drawn) -> str:
    """Sizes put together, and one taken out, by a slice, by an index, or as a number."""
    both = d.node("Concat", [d.size(), d.constant([7]), d.size()], axis=0)
    place = int(d.rng.integers(3))
    limits = [d.constant([place]), d.constant([place + 1])]
    way = d.rng.integers(3)
    if way == 0:
        return d.node("Slice", [both, *limits])
    if way == 1:
        return d.gathered(both, place - 3)
    number = d.node("Gather", [both, d.constant(place)], axis=0)
    if d.opset < 13:
        return d.node("Unsqueeze", [number], axes=[0])
    return d.node("Unsqueeze", [number, d.constant([0])])


def _signed(d: Drawn) -> str:
    return d.node(d.pick("Abs", "Neg", "Sign"), [d.size()])


STEPS: tuple[Callable[[Drawn], str], ...] = (
    _binary, _binary, _binary, _chosen, _chosen, _scaled, _to_multiple, _reduced, _moved, _signed,
)  # fmt: skip


# What sizes decide


def _reshape(d: Drawn) -> str:
    lead = d.pick(d.gathered("shape", 0), d.constant([0]), d.constant([2]), d.size())
    sizes = d.node("Concat", [lead, d.constant([-1])], axis=0)
    return d.node("Reshape", ["x", sizes])


def _expand(d: Drawn) -> str:
    grid = d.constant(d.rng.standard_normal((1, 2, 1)), "f4")
    sizes = d.node("Concat", [d.small(), d.constant([2]), d.pick(d.small(), d.size())], axis=0)
    return d.node("Expand", [grid, sizes])


def _tile(d: Drawn) -> str:
    repeats = d.node("Concat", [d.constant([1, 1]), d.small(), d.constant([2])], axis=0)
    return d.node("Tile", ["x", repeats])


def _pad(d: Drawn) -> str:
    last = d.pick(_to_multiple(d), d.small(), d.size())
    pads = d.node("Concat", [d.constant([0] * 6), last, d.small()], axis=0)
    return d.node("Pad", ["x", pads], mode="constant")


def _slice(d: Drawn) -> str:
    start = d.pick(d.constant([0]), d.constant([-3]), d.size())
    stop = d.pick(d.size(), d.small(), d.constant([5]))
    return d.node("Slice", ["x", start, stop, d.constant([d.pick(2, 3)])])


def _resize(d: Drawn) -> str:
    whole = d.node("Slice", ["shape", d.constant([0]), d.constant([2])])
    sizes = d.node("Concat", [whole, d.small(), d.pick(d.size(), d.small())], axis=0)
    empty = d.constant([], "f4")
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return d.node("Resize", ["x", empty, empty, sizes], mode="nearest", **how)


def _filled(d: Drawn) -> str:
    sizes = d.node("Concat", [d.small(), d.small()], axis=0)
    value = numpy_helper.from_array(np.float32([2.5]))
    return d.node("ConstantOfShape", [sizes], value=value)


def _range(d: Drawn) -> str:
    number = [d.node("Squeeze", [x]) for x in (d.small(), d.size())]
    if d.rng.random() < 0.5:
        counted = d.node("Range", [d.constant(0), number[1], number[0]])
        return d.node("Cast", [counted], to=F)
    floats = [d.node("Cast", [x], to=F) for x in number]
    step = d.constant(d.pick(0.5, 1.0, 0.3), "f4")
    return d.node("Range", [floats[0], floats[1], step])


def _top_k(d: Drawn) -> str:
    d.nodes.append(helper.make_node("TopK", ["x", d.small()], ["top", "where"], axis=3))
    return "top"


def _number(d: Drawn) -> str:
    """The size itself, beside elements."""
    return d.node("Add", ["x", d.node("Cast", [d.size()], to=F)])


USES: tuple[Callable[[Drawn], str], ...] = (
    _reshape, _expand, _tile, _pad, _slice, _resize, _filled, _range, _top_k, _number,
)  # fmt: skip

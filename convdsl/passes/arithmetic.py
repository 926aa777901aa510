"""Building arithmetic over weights: what a rewrite leaves to be computed at weight time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from convdsl.ir.graph import OpNode, Value
from convdsl.ops import BY_NAME
from convdsl.passes.rewrite import Rewriter
from convdsl.tensor import Dim, TensorType


@dataclass(frozen=True)
class WeightArithmetic:
    """Operators built around a node and named after it; the names are for readers of the graph."""

    rewriter: Rewriter
    origin: OpNode

    def binary(self, op: str, a: Value, b: Value, name: str) -> Value:
        """`op` is add, sub, mul or div; operands broadcast as in NumPy."""
        operands = {"a": a, "b": b}
        return self.rewriter.apply(BY_NAME[op], operands, origin=self.origin, name=name)

    def sqrt(self, x: Value, name: str) -> Value:
        return self.rewriter.apply(BY_NAME["sqrt"], {"x": x}, origin=self.origin, name=name)

    def reshape(self, x: Value, shape: tuple[Dim, ...], name: str) -> Value:
        if x.type.shape == shape:
            return x
        attributes = {"shape": shape}
        return self.rewriter.apply(
            BY_NAME["reshape"], {"x": x}, attributes, origin=self.origin, name=name
        )

    def fill(self, value: float, like: Value, shape: tuple[Dim, ...], name: str) -> Value:
        """A constant of one value, in the dtype of `like`."""
        dtype = like.type.dtype
        extents = [extent for extent in shape if isinstance(extent, int)]
        assert len(extents) == len(shape), "weights have known sizes"
        data = np.full(extents, value, dtype.numpy)
        type = TensorType(dtype, shape)
        return self.rewriter.constant(data, type, origin=self.origin, name=name)

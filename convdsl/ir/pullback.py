"""What rules build gradients from: a node, and the gradients of its outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from convdsl.ir.build import Build
from convdsl.ir.graph import OpNode, Value
from convdsl.ir.keeping import Recording, keeping
from convdsl.tensor import TensorType


@dataclass(frozen=True, slots=True)
class Pullback:
    """The gradients of a node's outputs (`dys`, None where one has none), and a builder for those
    of the operands that are `wanted`."""

    build: Build
    node: OpNode
    dys: tuple[Value | None, ...]
    wanted: frozenset[str]

    @property
    def dy(self) -> Value:
        """The gradient of the first output."""
        dy = self.dys[0]
        assert dy is not None
        return dy

    @property
    def y(self) -> Value:
        """The first output."""
        return self.node.outputs[0]

    def kept(self, wanted: Recording) -> tuple[Value, ...]:
        """What stages of the node's arithmetic make. The node puts them out from now on."""
        node, names = self.node, wanted.stages
        before = len(node.outputs) - len(names)
        if before > 0 and node.op.outputs[before:] == names:
            return node.outputs[before:]
        before = len(node.outputs)
        self.build.graph.extend(node, keeping(node.op, wanted))
        return node.outputs[before:]

    def operand(self, name: str) -> Value:
        return self.node.inputs[name]

    def __getitem__(self, attribute: str) -> Any:
        return self.node.attributes[attribute]

    def zeros(self, type: TensorType) -> Value:
        """Zeros for an output without gradient."""
        return self.build.filled(0.0, type)


Gradients: TypeAlias = Mapping[str, "Value | None"]
"""Gradients by operand; None where one is zero."""

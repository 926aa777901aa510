"""Putting operators into a graph, a line each: for rewrites, importers, gradients and tests.

    b = Build(graph, BY_NAME)
    x = b.input("x", TensorType(DType.F32, (1, 3, 8, 8)))
    y = b("relu", b("conv", x, channels=4, kernel=3))

Operands are data operands in their order, attributes as the language gives them; weights are
made, unless `states` hands them in. A builder `at` a node gives what it makes that node's place in
the source and names that begin with the node's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from convdsl.ir.graph import Graph, Node, OpNode, Value
from convdsl.ir.opdef import OpDef, Role
from convdsl.tensor import Dim, DType, TensorType
from convdsl.tensor.conversion import narrow_bf16


class Names:
    """Which names are taken; each is given once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)
        self._counts: dict[str, int] = {}  # where to go on looking

    def unused(self, wanted: str) -> str:
        """`wanted`, or the first of `wanted_2`, `wanted_3` ... that nothing has."""
        found, count = wanted, self._counts.get(wanted, 1)
        while found in self._taken:
            count += 1
            found = f"{wanted}_{count}"
        self._counts[wanted] = count
        self._taken.add(found)
        return found

    def free(self, name: str) -> None:
        """What bore the name is gone."""
        self._taken.discard(name)
        self._counts.clear()

    def __contains__(self, name: str) -> bool:
        return name in self._taken


@dataclass(frozen=True)
class Build:
    """Makes nodes of `graph` with the `operators` of a table. Rules' objections are OpErrors."""

    graph: Graph
    operators: Mapping[str, OpDef]
    names: Names = field(default_factory=Names)
    origin: Node | None = None

    def at(self, origin: Node) -> Build:
        """A builder of what stands for `origin`, or serves it."""
        return replace(self, origin=origin)

    def __call__(
        self,
        op: str,
        *operands: Value,
        name: str | None = None,
        states: Mapping[str, Value] | None = None,
        **attributes: Any,
    ) -> Value:
        """The first output of a new operator, called by its `name`, by default the operator's."""
        return self.node(op, *operands, name=name, states=states, **attributes).outputs[0]

    def node(
        self,
        op: str,
        *operands: Value,
        name: str | None = None,
        states: Mapping[str, Value] | None = None,
        **attributes: Any,
    ) -> OpNode:
        """The new operator itself, where several of its outputs are wanted."""
        record = self.operators[op]
        inputs = dict(zip(_data_names(record, len(operands)), operands, strict=False))
        return self.apply(record, inputs | dict(states or {}), attributes, name=name or op)

    def apply(
        self,
        op: OpDef,
        inputs: Mapping[str, Value],
        attributes: Mapping[str, Any] | None = None,
        *,
        name: str,
    ) -> OpNode:
        """An operator by its record, operands by their names."""
        label = self._label(name)
        origin = self.origin
        if origin is None:
            return self.graph.apply(op, inputs, attributes, name=label)
        return self.graph.apply(
            op, inputs, attributes, name=label, span=origin.span, frames=origin.frames
        )

    def input(self, name: str, type: TensorType) -> Value:
        """A model input."""
        return self.graph.add_input(self.names.unused(name), type)

    def state(
        self, name: str, type: TensorType, role: Role = Role.PARAMETER, init: str = "zeros"
    ) -> Value:
        """A weight, or a running statistic, by its key."""
        return self._state(name, type, role, init, None)

    def constant(self, data: Any, dtype: DType, *, name: str = "constant") -> Value:
        """A constant array, or number; of bf16 numbers as well as bits."""
        array = np.asarray(data)
        if dtype is DType.BF16 and array.dtype != np.uint16:
            array = narrow_bf16(array.astype(np.float64))
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            array = np.asarray(array, dtype.numpy)
        return self._state(name, TensorType(dtype, array.shape), Role.CONSTANT, "zeros", array)

    def fill(self, number: float, shape: tuple[Dim, ...], dtype: DType, *, name: str) -> Value:
        """A constant of one number; its sizes are known."""
        sizes = TensorType(dtype, shape).sizes
        return self.constant(np.full(sizes, number), dtype, name=name)

    def filled(self, number: float, type: TensorType) -> Value:
        """One number in every element; sizes may be free."""
        return self("expand", self.constant(number, type.dtype), shape=type.shape)

    def reshape(self, x: Value, shape: tuple[Dim, ...], *, name: str = "reshape") -> Value:
        """x under another shape: x itself where that is its own."""
        return x if x.type.shape == shape else self("reshape", x, shape=shape, name=name)

    def _state(self, name: str, type: TensorType, role: Role, init: str, data: Any) -> Value:
        span, frames = (None, ()) if self.origin is None else (self.origin.span, self.origin.frames)
        return self.graph.add_state(self._label(name), type, role, init, data, span, frames)

    def _label(self, name: str) -> str:
        return self.names.unused(name if self.origin is None else f"{self.origin.name}.{name}")


def _data_names(op: OpDef, count: int) -> list[str]:
    """Names of the first `count` data operands, a variadic last one spelled out."""
    names = [operand.name for operand in op.data_operands]
    if op.data_operands and op.data_operands[-1].variadic:
        stem = names.pop()
        names += [f"{stem}{k}" for k in range(count - len(names))]
    return names

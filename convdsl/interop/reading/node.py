"""One ONNX node on its way into the graph: what reading rules see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convdsl.interop.reading.folding import integers
from convdsl.interop.reading.tensors import (
    Array,
    Known,
    ReadError,
    Tensor,
    Undecided,
    dtype_of,
    shape_of,
)
from convdsl.ir.graph import Value
from convdsl.ops import BY_NAME
from convdsl.tensor import Dim, DType

if TYPE_CHECKING:
    import onnx

    from convdsl.interop.reading.scene import Scene


class Reading:
    """A node's inputs and attributes, and the way to put operators into the graph."""

    def __init__(
        self,
        scene: Scene,
        proto: onnx.NodeProto,
        inputs: Sequence[Tensor | None],
        attributes: Mapping[str, Any],
        opset: int,
    ) -> None:
        self.scene = scene
        self.proto = proto
        self.inputs = inputs
        self.attributes = attributes
        self.opset = opset

    def instead(self, *inputs: Tensor | None, **attributes: Any) -> Reading:
        """The same node with other inputs, and attributes besides its own: as a rule of another
        kind is to see it."""
        return Reading(
            self.scene, self.proto, inputs, {**self.attributes, **attributes}, self.opset
        )

    # Attributes and inputs

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    @property
    def outputs(self) -> int:
        """How many outputs are asked for; trailing ones may be left out."""
        return len(self.proto.output)

    def wants(self, index: int) -> bool:
        return index < len(self.proto.output) and bool(self.proto.output[index])

    def given(self, index: int) -> Tensor | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def has(self, index: int) -> bool:
        return self.given(index) is not None

    def __getitem__(self, index: int) -> Tensor:
        tensor = self.given(index)
        if tensor is None:
            raise ReadError(f"input {index} is missing")
        return tensor

    def shape(self, index: int) -> tuple[Dim, ...]:
        return shape_of(self[index])

    def rank(self, index: int) -> int:
        return len(self.shape(index))

    def extent(self, size: Dim) -> int:
        """A size that must not be symbolic."""
        if not isinstance(size, int):
            raise Undecided(f"{size} has to be known; bind it when loading")
        return size

    def dtype(self, index: int) -> DType:
        return dtype_of(self[index])

    def array(self, index: int) -> Array:
        """An input that has to be known while reading."""
        tensor = self[index]
        if isinstance(tensor, Known):
            return tensor.array
        raise self.scene.unknown(tensor, f"input {index} ({self.proto.input[index]})")

    def sizes(self, index: int) -> list[Any]:
        """A list of integers, symbolic ones among them."""
        return integers(self.array(index))

    def numbers(self, index: int) -> list[float]:
        array = self.array(index)
        if array.dtype == object:
            raise Undecided(f"input {index} ({self.proto.input[index]}) depends on a free size")
        return [float(v) for v in array.reshape(-1)]

    def number(self, index: int) -> float:
        (value,) = self.numbers(index)
        return value

    def is_number(self, index: int) -> bool:
        """Whether an input is a single number known while reading."""
        tensor = self.given(index)
        return isinstance(tensor, Known) and tensor.array.size == 1 and not tensor.is_symbolic

    def axes(self, index: int, attribute: str = "axes") -> list[int] | None:
        """Axes, an input in later opsets and an attribute in earlier ones; None if not given."""
        if self.has(index):
            return [int(axis) for axis in self.array(index).reshape(-1)]
        given = self.attribute(attribute)
        return None if given is None else list(given)

    def aligned(self) -> Tensor:
        """The second operand; before opset 7 it may say along which axis it broadcasts."""
        axis = self.attribute("axis")
        if self.opset >= 7 or axis is None or not self.attribute("broadcast", 0):
            return self[1]
        shape = self.shape(1)
        wanted = (*shape, *[1] * (self.rank(0) - axis % self.rank(0) - len(shape)))
        tensor = self[1]
        if isinstance(tensor, Known):
            return Known(tensor.array.reshape([self.extent(size) for size in wanted]), tensor.name)
        return self.reshape(tensor, wanted)

    # Making

    def apply_all(self, op: str, inputs: Mapping[str, Tensor], **attributes: Any) -> list[Value]:
        """An operator's outputs."""
        return self.scene.apply(self.proto, BY_NAME[op].name, inputs, attributes)

    def apply(self, op: str, inputs: Mapping[str, Tensor], **attributes: Any) -> Value:
        return self.apply_all(op, inputs, **attributes)[0]

    def unary(self, op: str, x: Tensor, **attributes: Any) -> Value:
        return self.apply(op, {"x": x}, **attributes)

    def binary(self, op: str, a: Tensor, b: Tensor) -> Value:
        return self.apply(op, {"a": a, "b": b})

    def joined(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        """Tensors one behind the other; one alone is itself."""
        if len(tensors) == 1:
            return tensors[0]
        return self.apply("concat", {f"x{i}": x for i, x in enumerate(tensors)}, axis=axis)

    def like(self, value: Any, x: Tensor) -> Known:
        """A constant of the dtype of x."""
        return Known(np.asarray(value, dtype_of(x).numpy))

    def nothing(self, x: Tensor, shape: Sequence[Dim]) -> Known | None:
        """What is left of x where a size is 0: a tensor without elements, which other tensors may
        be joined to; None where there are some."""
        sizes = [size for size in shape if isinstance(size, int)]
        if 0 not in sizes:
            return None
        if len(sizes) < len(shape):
            raise Undecided("nothing is left of a tensor with sizes that are free")
        return Known(np.zeros(sizes, dtype_of(x).numpy))

    def reshape(self, x: Tensor, shape: Sequence[Dim]) -> Value:
        return self.unary("reshape", x, shape=tuple(shape))

"""What a tensor is: element type and shape."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from convdsl.tensor.binding import substitute, symbols_of
from convdsl.tensor.dim import Dim, Symbol


class DType(enum.Enum):
    """Element types. f32 and f64 compute; i64 and bool serve indices and masks."""

    F32 = "f32"
    F64 = "f64"
    I64 = "i64"
    BOOL = "bool"

    @property
    def bytes(self) -> int:
        return {"f32": 4, "f64": 8, "i64": 8, "bool": 1}[self.value]

    @property
    def numpy(self) -> str:
        """The NumPy spelling, e.g. `float32`."""
        return {"f32": "float32", "f64": "float64", "i64": "int64", "bool": "bool"}[self.value]

    @property
    def is_float(self) -> bool:
        return self in (DType.F32, DType.F64)

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class TensorType:
    """dtype and shape, the shape in logical order (N, C, then the spatial axes)."""

    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Dim:
        total: Dim = 1
        for extent in self.shape:
            total = total * extent
        return total

    @property
    def bytes(self) -> Dim:
        return self.elements * self.dtype.bytes

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape as plain numbers. ValueError where a symbol is not bound."""
        numbers = tuple(extent for extent in self.shape if isinstance(extent, int))
        if len(numbers) != len(self.shape):
            raise ValueError(f"the sizes of {self} are not all known")
        return numbers

    def symbols(self) -> frozenset[Symbol]:
        return frozenset(s for extent in self.shape for s in symbols_of(extent))

    def bind(self, bindings: Mapping[str, Dim]) -> TensorType:
        return TensorType(self.dtype, tuple(substitute(d, bindings) for d in self.shape))

    def __str__(self) -> str:
        return f"{self.dtype}{format_shape(self.shape)}"


def format_shape(shape: tuple[Dim, ...]) -> str:
    """`[N, 64, 56, 56]`."""
    return f"[{', '.join(map(str, shape))}]"


@dataclass(frozen=True, slots=True)
class Window:
    """How one output position looks back at its input, axis by axis of space.

    Output index o reads input positions  o * stride - padding_before + t * dilation,
    t = 0 .. kernel - 1. Feeds shape inference and the receptive field alike.
    """

    kernel: tuple[Dim, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[Dim, Dim], ...]  # (before, after) per axis
    dilation: tuple[int, ...]

    @property
    def rank(self) -> int:
        return len(self.kernel)

    def extent(self, axis: int) -> Dim:
        """Span of input positions covered: dilation * (kernel - 1) + 1."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

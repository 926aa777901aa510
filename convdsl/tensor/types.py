"""What a tensor is: element type and shape."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from functools import lru_cache
from math import inf

from convdsl.tensor.binding import substitute, symbols_of
from convdsl.tensor.dim import Dim, Symbol
from convdsl.tensor.records import record


class Kind(enum.Enum):
    """What the bits of an element mean."""

    FLOAT = "float"
    SIGNED = "signed"
    UNSIGNED = "unsigned"
    BOOL = "bool"


class DType(enum.Enum):
    """Element types, and all that is to be known of each.

    bytes: of one element in memory.
    numpy: NumPy's spelling of what is stored. NumPy has no bf16: an array holds its bits as
        uint16, and `tensor.conversion` is what reads and makes them. tf32 is f32 with the last 13
        bits zero: what cards keep between kernels for their tensor units, and nobody else.
    computed: the type that arithmetic is done in. Where it is another one the type is for
        storage: `kernel.storage` widens what is read and narrows what is written.
    """

    _value_: str
    bytes: int
    kind: Kind
    numpy: str
    _computed: str

    F16 = "f16", 2, Kind.FLOAT, "float16", "f32"
    BF16 = "bf16", 2, Kind.FLOAT, "uint16", "f32"
    F32 = "f32", 4, Kind.FLOAT, "float32", "f32"
    F64 = "f64", 8, Kind.FLOAT, "float64", "f64"
    I8 = "i8", 1, Kind.SIGNED, "int8", "i64"
    U8 = "u8", 1, Kind.UNSIGNED, "uint8", "i64"
    I32 = "i32", 4, Kind.SIGNED, "int32", "i64"
    I64 = "i64", 8, Kind.SIGNED, "int64", "i64"
    U32 = "u32", 4, Kind.UNSIGNED, "uint32", "u32"
    BOOL = "bool", 1, Kind.BOOL, "bool", "bool"
    TF32 = "tf32", 4, Kind.FLOAT, "float32", "f32"

    def __new__(cls, name: str, bytes: int, kind: Kind, numpy: str, computed: str) -> DType:
        made = object.__new__(cls)
        made._value_ = name
        made.bytes, made.kind, made.numpy, made._computed = bytes, kind, numpy, computed
        return made

    __hash__ = object.__hash__  # each is one object; an enumeration's own hashes its name

    @property
    def is_float(self) -> bool:
        return self.kind is Kind.FLOAT

    @property
    def is_integer(self) -> bool:
        return self.kind in (Kind.SIGNED, Kind.UNSIGNED)

    @property
    def computed(self) -> DType:
        """The type that arithmetic on such elements is done in."""
        return DType(self._computed)

    @property
    def computes(self) -> bool:
        """Whether arithmetic is done in this type itself."""
        return self._computed == self._value_

    @property
    def lowest(self) -> float | int | bool:
        """The least value: the neutral element of a maximum."""
        match self.kind:
            case Kind.FLOAT:
                return -inf
            case Kind.SIGNED:
                return -(1 << (8 * self.bytes - 1))
            case Kind.UNSIGNED:
                return 0
            case Kind.BOOL:
                return False

    @property
    def highest(self) -> float | int | bool:
        """The greatest value: the neutral element of a minimum."""
        match self.kind:
            case Kind.FLOAT:
                return inf
            case Kind.SIGNED:
                return (1 << (8 * self.bytes - 1)) - 1
            case Kind.UNSIGNED:
                return (1 << 8 * self.bytes) - 1
            case Kind.BOOL:
                return True

    @property
    def largest(self) -> float | int | bool:
        """The greatest finite value."""
        return _LARGEST_FLOATS.get(self.value, self.highest)

    def __str__(self) -> str:
        return self.value


_LARGEST_FLOATS = {
    "f16": 65504.0,
    "bf16": (2 - 2.0**-7) * 2.0**127,
    "tf32": (2 - 2.0**-10) * 2.0**127,
    "f32": (2 - 2.0**-23) * 2.0**127,
    "f64": (2 - 2.0**-52) * 2.0**1023,
}


HOST_DTYPES = tuple(dtype for dtype in DType if dtype is not DType.TF32)
"""The element types that processors store."""

LANGUAGE_DTYPES = tuple(dtype for dtype in HOST_DTYPES if dtype is not DType.U32)
"""The element types that source text and imported files may name."""


@lru_cache(maxsize=10_000)
def _elements(shape: tuple[Dim, ...]) -> Dim:
    """How many there are: the layers of a network have few shapes."""
    total: Dim = 1
    for extent in shape:
        total = total * extent
    return total


@record
class TensorType:
    """dtype and shape, the shape in logical order (N, C, then the spatial axes)."""

    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def elements(self) -> Dim:
        return _elements(self.shape)

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


@record
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

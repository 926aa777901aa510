"""What flows while an ONNX model is read: graph values, and arrays already known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from convdsl.ir.graph import Value
from convdsl.tensor import Dim, DType, Symbol, SymDim
from convdsl.tensor.conversion import of_numpy

Array: TypeAlias = "NDArray[Any]"


class ReadError(Exception):
    """An objection to one node; the importer adds which."""


class Undecided(ReadError):
    """An objection that may fall when free sizes are bound.

    `condition`, where there is one, is a symbol of which enough more is known.
    """

    def __init__(self, message: str, condition: Symbol | None = None) -> None:
        super().__init__(message)
        self.condition = condition


@dataclass(eq=False, slots=True)
class Known:
    """A tensor whose elements are known while reading: initialisers, constants, shapes.

    Sizes that hold symbols are in an array of objects. `name` is where it came from, if that
    was an initialiser.
    """

    array: Array
    name: str = ""

    @property
    def is_symbolic(self) -> bool:
        return self.array.dtype == object

    @property
    def dtype(self) -> DType:
        return DType.I64 if self.is_symbolic else of_numpy(self.array.dtype)


Tensor: TypeAlias = "Value | Known"


def known(values: Any, name: str = "") -> Known:
    """Integers, symbolic ones among them, or any array."""
    array: Array = np.asarray(values)
    if array.dtype == object and not any(isinstance(v, SymDim) for v in array.flat):
        array = array.astype(np.int64)
    return Known(array, name)


def known_sizes(sizes: Iterable[Dim]) -> Known:
    """A list of sizes."""
    listed = list(sizes)
    array = np.empty(len(listed), object)
    array[:] = listed
    return known(array) if listed else Known(np.zeros(0, np.int64))


def shape_of(x: Tensor) -> tuple[Dim, ...]:
    """The shape of a graph value or of a known array."""
    return x.type.shape if isinstance(x, Value) else tuple(x.array.shape)


def dtype_of(x: Tensor) -> DType:
    """The element type of a graph value or of a known array."""
    return x.type.dtype if isinstance(x, Value) else x.dtype


def integers(array: Array) -> list[Any]:
    """Elements as integers, free sizes as they are."""
    return [v if isinstance(v, SymDim) else int(v) for v in array.reshape(-1)]

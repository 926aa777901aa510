"""Where ONNX nodes are collected: names used once, constants, sizes computed at run time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from convdsl.diagnostics import InputError
from convdsl.interop.element_types import TO_ONNX
from convdsl.ir.graph import is_open
from convdsl.ir.opdef import Call
from convdsl.tensor import Dim, DType, SymDim, bounds
from convdsl.tensor.conversion import narrow_bf16
from convdsl.tensor.dim import Atom, Extremum, Floor, Symbol


class Writer:
    """The nodes and initialisers of one graph, in order."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initialisers: list[onnx.TensorProto] = []
        self._taken = set(taken)
        self._nodes_taken: set[str] = set()
        self._sources: dict[str, tuple[str, int]] = {}
        self._extents: dict[Dim, str] = {}

    def unused(self, name: str) -> str:
        """`name` if no tensor is called so, else the first of name_2, name_3, ... that is free."""
        return _unused(name, self._taken)

    def node(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], name: str, **attributes: Any
    ) -> None:
        called = _unused(name, self._nodes_taken)
        trimmed = list(inputs)
        while trimmed and not trimmed[-1]:  # optional inputs that are not there
            trimmed.pop()
        self.nodes.append(helper.make_node(kind, trimmed, outputs, called, **attributes))

    def initialiser(self, name: str, array: NDArray[Any]) -> str:
        held = np.asarray(array, order="C")
        if held.dtype == np.uint16:  # the bits of bf16
            raw = held.tobytes()
            made = helper.make_tensor(name, TO_ONNX[DType.BF16], held.shape, raw, raw=True)
        else:
            made = numpy_helper.from_array(held, name)
        self.initialisers.append(made)
        return name

    # Sizes known at run time only

    def symbols_from(self, inputs: Mapping[str, tuple[Dim, ...]]) -> None:
        """Note where each symbol can be read off: an axis of an input that is just the symbol."""
        for name, shape in inputs.items():
            for axis, extent in enumerate(shape):
                if isinstance(extent, SymDim):
                    self._sources.setdefault(str(extent), (name, axis))

    def extents(self, sizes: Sequence[Dim], name: str) -> str:
        """A list of integers, some of them computed from the shapes of the inputs."""
        if all(isinstance(size, int) for size in sizes):
            return self.initialiser(self.unused(name), np.asarray(sizes, "int64"))
        parts = [self._extent(size) for size in sizes]
        if len(parts) == 1:
            return parts[0]
        return self._computed("Concat", parts, name, axis=0)

    def _extent(self, size: Dim) -> str:
        """A list of one integer."""
        if size not in self._extents:
            self._extents[size] = self._compute(size)
        return self._extents[size]

    def _compute(self, size: Dim) -> str:
        if isinstance(size, int):
            return self.initialiser(self.unused(f"size_{size}"), np.asarray([size], "int64"))
        common = lcm(*(Fraction(factor).denominator for _, factor in size.terms))
        total = ""
        for monomial, coefficient in size.terms:
            product = "" if common * coefficient == 1 else self._extent(int(common * coefficient))
            for atom, power in monomial:
                for _ in range(power):
                    product = self._joined("Mul", product, self._atom(atom))
            total = self._joined("Add", total, product or self._extent(1))
        return total if common == 1 else self._joined("Div", total, self._extent(common))

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, Symbol):
            if atom.name not in self._sources:
                raise InputError(f"no input has an axis of just {atom}, so ONNX cannot know it")
            name, axis = self._sources[atom.name]
            return self._computed("Shape", [name], atom.name, start=axis, end=axis + 1)
        if isinstance(atom, Extremum):
            kind = "Min" if atom.kind == "min" else "Max"
            return self._computed(kind, [self._extent(a) for a in atom.arguments], "size")
        return self._floor(atom)

    def _floor(self, atom: Floor) -> str:
        """ONNX divides integers towards zero: negative numerators are shifted first."""
        top, bottom = atom.numerator, atom.denominator
        low = bounds(top)[0]
        if low is not None and low >= 0:
            return self._joined("Div", self._extent(top), self._extent(bottom))
        rest = self._joined("Mod", self._extent(top), self._extent(bottom))
        even = self._joined("Sub", self._extent(top), rest)
        return self._joined("Div", even, self._extent(bottom))

    def _joined(self, kind: str, left: str, right: str) -> str:
        return self._computed(kind, [left, right], "size") if left else right

    def _computed(self, kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        output = self.unused(name)
        self.node(kind, inputs, [output], output, **attributes)
        return output


def _unused(name: str, taken: set[str]) -> str:
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    taken.add(found)
    return found


class Spelling:
    """One call of an operator, on its way to nodes. Rules add nodes by calling it."""

    def __init__(self, writer: Writer, call: Call, operands: Mapping[str, str], name: str) -> None:
        self.writer = writer
        self.call = call
        self.operands = operands
        self.name = name

    def __getitem__(self, operand: str) -> str:
        """The tensor that an operand is, or nothing where the call has none."""
        return self.operands.get(operand, "")

    def __call__(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns its output's name, or a list of names where there are several."""
        for name, value in attributes.items():
            if is_open(value):
                raise InputError(
                    f"{self.name} ({self.call.op.name}): ONNX's {kind} needs {name} in numbers, "
                    "not symbols; bind the sizes before exporting"
                )
        label = f"{self.name}/{kind}"
        names = [self.writer.unused(label) for _ in range(outputs)]
        self.writer.node(kind, inputs, names, label, **attributes)
        return names[0] if outputs == 1 else names

    @property
    def dtype(self) -> DType:
        """The dtype of the first operand."""
        return next(iter(self.call.types.values())).dtype

    @property
    def single(self) -> bool:
        """Whether single precision is asked for, which is what ONNX's own constants have."""
        return self.dtype is DType.F32

    @property
    def element(self) -> int:
        return TO_ONNX[self.dtype]

    def constant(self, value: Any, dtype: str | None = None) -> str:
        """A constant, of the dtype of the first operand unless said."""
        if dtype is None and self.dtype is DType.BF16:
            array: NDArray[Any] = narrow_bf16(np.asarray(value, np.float64))
        else:
            array = np.asarray(value, dtype or self.dtype.numpy)
        return self.writer.initialiser(self.writer.unused(f"{self.name}/constant"), array)

    def integers(self, values: Iterable[Dim]) -> str:
        return self.writer.extents(list(values), f"{self.name}/sizes")

    def space(self) -> str:
        """The spatial axes of x."""
        return self.integers(range(2, self.call.type("x").rank))

    def reshaped(self, x: str, shape: Sequence[Dim], source: Sequence[Dim] = ()) -> str:
        """x, whose shape is `source`, in another shape: 0 copies an extent, -1 is found."""
        sizes: list[Dim] = [
            0 if not isinstance(size, int) and axis < len(source) and source[axis] == size else size
            for axis, size in enumerate(shape)
        ]
        unknown = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
        if len(unknown) == 1:
            sizes[unknown[0]] = -1
        elif unknown:
            sizes = list(shape)
        return self("Reshape", x, self.integers(sizes))

    def affine(self, shape: Sequence[Dim]) -> tuple[str, str]:
        """Weight and bias; ones and zeros where the call has none."""
        if self.call.has("weight"):
            return self["weight"], self["bias"]
        return self.constant(np.ones(_known(shape))), self.constant(np.zeros(_known(shape)))


def _known(shape: Sequence[Dim]) -> tuple[int, ...]:
    known = tuple(size for size in shape if isinstance(size, int))
    if len(known) < len(shape):
        raise InputError(f"the shape {list(shape)} has to be known; bind the sizes first")
    return known

"""What a test case of an operator is, and how one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from convdsl.ir.opdef import Call, OpDef
from convdsl.ops import BY_NAME
from convdsl.tensor import DType, TensorType, symbol

Array: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Case:
    """One drawn configuration: DSL attributes, and an array for every operand.

    `symbols` names axes that may as well be symbolic: operand -> one name or None per axis.
    """

    op: OpDef
    attributes: Mapping[str, Any]
    arrays: Mapping[str, Array]
    symbols: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    @property
    def call(self) -> Call:
        types = {name: type_of(array) for name, array in self.arrays.items()}
        return self.op.call(types, self.attributes)

    @property
    def symbolic_call(self) -> Call:
        """The call with symbols in place of sizes."""
        data = {name: type_of(array) for name, array in self.arrays.items()}
        state = {s.name for s in self.op.state(self.call)}
        types = {name: self._symbolic(name, t) for name, t in data.items() if name not in state}
        call = self.op.call(types, self.attributes)
        types |= {spec.name: spec.type for spec in self.op.state(call)}
        return self.op.call(types, call.attributes)

    def _symbolic(self, name: str, type: TensorType) -> TensorType:
        names = self.symbols.get(name, (None,) * type.rank)
        shape = tuple(
            extent if s is None else symbol(s) for s, extent in zip(names, type.shape, strict=True)
        )
        return TensorType(type.dtype, shape)

    @property
    def bindings(self) -> dict[str, int]:
        return {
            s: self.arrays[name].shape[axis]
            for name, names in self.symbols.items()
            for axis, s in enumerate(names)
            if s is not None
        }

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {type_of(array)}" for name, array in self.arrays.items())
        return f"{self.op.name}({shapes}; {dict(self.attributes)})"


def type_of(array: Array) -> TensorType:
    dtype = next(d for d in DType if d.numpy == array.dtype.name)
    return TensorType(dtype, tuple(array.shape))


class Draw:
    """A seeded source of sizes, choices and arrays."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = DType.F32 if self.chance(0.7) else DType.F64

    def integer(self, low: int, high: int) -> int:
        """low..high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, probability: float = 0.5) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, *options: Any) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def sizes(self, rank: int, low: int, high: int) -> Any:
        """One size per axis, at times as the single integer that the DSL accepts for all."""
        if self.chance(0.3):
            return self.integer(low, high)
        return tuple(self.integer(low, high) for _ in range(rank))

    def shape(self, rank: int, low: int = 1, high: int = 9) -> tuple[int, ...]:
        """Ragged: a small batch and few channels, then space."""
        lead = (self.integer(1, 3), self.integer(1, 7))[: min(rank, 2)]
        return (*lead, *(self.integer(low, high) for _ in range(rank - len(lead))))

    def array(self, shape: Sequence[Any], low: float = -2.0, high: float = 2.0) -> Array:
        return self.rng.uniform(low, high, tuple(shape)).astype(self.dtype.numpy)

    def distinct(self, shape: Sequence[int]) -> Array:
        """Values of which no two are alike or nearly so."""
        count = int(np.prod(shape, dtype=int))
        values = self.rng.permutation(count) / max(count, 1) * 4 - 2
        return values.reshape(tuple(shape)).astype(self.dtype.numpy)

    def repeated(self, shape: Sequence[int]) -> Array:
        """Values of which many are alike."""
        return self.rng.integers(-2, 3, tuple(shape)).astype(self.dtype.numpy)


Generator: TypeAlias = Callable[[Draw], Case]


def full(values: Any, rank: int) -> tuple[int, ...]:
    """One size per axis of what `Draw.sizes` gave."""
    return (values,) * rank if isinstance(values, int) else tuple(values)


def with_state(draw: Draw, name: str, attributes: Mapping[str, Any], x: Array, **more: Any) -> Case:
    """A case of an operator with one data operand `x` and weights of its own."""
    op = BY_NAME[name]
    call = op.call({"x": type_of(x)}, attributes)
    arrays = {"x": x}
    for spec in op.state(call):
        assert all(isinstance(extent, int) for extent in spec.type.shape)
        low = 0.3 if spec.name == "running_var" else -1.0
        arrays[spec.name] = draw.array(spec.type.shape, low, 1.5)
    return Case(op, attributes, arrays, **more)


def alone(draw: Draw, name: str, attributes: Mapping[str, Any]) -> Case:
    """A case of an operator that has weights and takes no tensor."""
    op = BY_NAME[name]
    specs = op.state(op.call({}, attributes))
    arrays = {spec.name: draw.array(spec.type.shape, -1.0, 1.5) for spec in specs}
    return Case(op, attributes, arrays)


def image_symbols(rank: int) -> dict[str, tuple[str | None, ...]]:
    """x[N, C, space...] with everything but the channels symbolic."""
    return {"x": ("N", None, "D", "H", "W")[:rank] if rank == 5 else ("N", None, "H", "W")[:rank]}

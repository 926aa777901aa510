"""A network as it is served: what it takes, in which batches it runs, what it says of itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from convdsl.diagnostics import InputError
from convdsl.serving.batching import Arrays, Way
from convdsl.serving.protocol import DATATYPES
from convdsl.tensor import Dim, TensorType, symbol

Array: TypeAlias = "npt.NDArray[Any]"
Sizes: TypeAlias = "Mapping[str, int]"

VERSION = "1"
"""Of every network: a file has one."""


class Network(Protocol):
    """What is served: an Executable, or what looks like one."""

    @property
    def inputs(self) -> Mapping[str, TensorType]: ...
    @property
    def outputs(self) -> Mapping[str, TensorType]: ...
    @property
    def samples_apart(self) -> bool: ...
    @property
    def sizes(self) -> Sequence[Sizes]: ...
    @property
    def labels(self) -> tuple[str, ...] | None: ...
    def bind(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]: ...
    def by_name(self, **named: Any) -> Mapping[str, Array]: ...


@dataclass(frozen=True)
class Hosted:
    """A network by a name.

    most: samples that run together at most. only: the sizes but the batch that are served, where
    not all are that fit. prepare: an array of images' files, for `image_input`.
    """

    name: str
    network: Network
    most: int
    only: Sequence[Sizes] = ()
    image_input: str | None = None
    prepare: Callable[[Sequence[bytes]], Array] | None = None

    @property
    def inputs(self) -> Mapping[str, TensorType]:
        """Of networks whose samples may share a batch the first axis is open, also where code is
        for one number."""
        return self._opened

    @cached_property
    def _opened(self) -> Mapping[str, TensorType]:
        return {name: _open(type, self._fixed) for name, type in self.network.inputs.items()}

    @property
    def outputs(self) -> Mapping[str, TensorType]:
        return self.network.outputs

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self.network.labels

    @cached_property
    def batch(self) -> str:
        """What the size is called that stands first, where samples are apart."""
        return str(next(iter(self.inputs.values())).shape[0]) if self.network.samples_apart else ""

    @cached_property
    def _fixed(self) -> int | None:
        """The only batch that there is code for."""
        first = next(iter(self.network.inputs.values())).shape[:1]
        fixed = first[0] if first and isinstance(first[0], int) else None
        return fixed if self.network.samples_apart else None

    def way(self, arrays: Arrays) -> tuple[Hashable, Way]:
        """How arrays run, and with whom: those of the same key. Raises InputError for shapes that
        are not served."""
        shapes = {name: array.shape for name, array in arrays.items()}
        apart = self.network.samples_apart
        if apart and len({shape[0] for shape in shapes.values()}) > 1:
            said = ", ".join(f"{shape[0]} of {name}" for name, shape in shapes.items())
            raise InputError(f"inputs of different batches: {said}")
        if self._fixed is not None:
            if any(not shape[0] for shape in shapes.values()):
                raise InputError("a batch of 0: at least one sample is needed")
            shapes = {name: (self._fixed, *shape[1:]) for name, shape in shapes.items()}
        sizes = self.network.bind(shapes)
        rest = {name: size for name, size in sizes.items() if name != self.batch}
        if self.only and rest not in self.only:
            said = " or ".join(map(sizes_text, self.only))
            raise InputError(f"{sizes_text(rest)}: this server is for {said}")
        key = tuple((name, *shapes[name][1:]) for name in self.inputs)
        return key, Way(self.batches(rest) if apart else (), self.run)

    def batches(self, rest: Sizes) -> Sequence[int]:
        """Numbers of samples that there is, or will be, code for where the other sizes are these:
        those of an artifact, else 1, 2, 4 and so on, so that no batch is filled up to more than
        twice its samples."""
        if self._fixed is not None:
            return (self._fixed,)
        if self.network.sizes:
            name = self.batch
            fitting = [s[name] for s in self.network.sizes if {**rest, name: s.get(name)} == s]
            return sorted(n for n in fitting if n <= self.most) or sorted(fitting)[:1]
        return ladder(self.most)

    def run(self, arrays: Arrays) -> Arrays:
        return self.network.by_name(**arrays)

    def metadata(self) -> dict[str, Any]:
        """What the protocol calls a model's metadata; sizes that are open are -1."""
        inputs = [_described(name, type) for name, type in self.inputs.items()]
        outputs = [
            _described(name, _open(type, self._fixed)) for name, type in self.outputs.items()
        ]
        described = {"name": self.name, "versions": [VERSION], "platform": "convdsl"}
        extra = {"parameters": {"image_input": self.image_input}} if self.image_input else {}
        return {**described, "inputs": inputs, "outputs": outputs, **extra}


def ladder(most: int) -> list[int]:
    """1, 2, 4 and so on up to `most`."""
    return [1 << power for power in range((most - 1).bit_length())] + [most]


def sizes_text(sizes: Sizes) -> str:
    """Sizes, for people."""
    return ", ".join(f"{name} = {size}" for name, size in sizes.items()) or "no size"


def warm(hosted: Hosted, shapes: Mapping[str, Sequence[int]]) -> None:
    """Have code made for every batch of these shapes. Raises InputError."""
    blank = {
        name: np.zeros(tuple(shapes[name]), type.dtype.numpy)
        for name, type in hosted.network.inputs.items()
    }
    _, way = hosted.way(blank)
    for size in way.sizes or [None]:
        hosted.run({n: a if size is None else _repeated(a, size) for n, a in blank.items()})


def _repeated(array: Array, count: int) -> Array:
    return np.zeros((count, *array.shape[1:]), array.dtype)


def _open(type: TensorType, fixed: int | None) -> TensorType:
    if fixed is None:
        return type
    return TensorType(type.dtype, (symbol("N"), *type.shape[1:]))


def _described(name: str, type: TensorType) -> dict[str, Any]:
    return {"name": name, "datatype": DATATYPES[type.dtype], "shape": [*map(_size, type.shape)]}


def _size(extent: Dim) -> int:
    return extent if isinstance(extent, int) else -1

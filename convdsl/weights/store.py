"""What every source of weights looks like: entries known at once, arrays read on demand."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from convdsl.diagnostics import WeightError, reason
from convdsl.kernel.signature import array_of
from convdsl.spelling import nearest
from convdsl.weights.trained import Trained

BFLOAT16 = "bfloat16"
"""The one element type that NumPy lacks; it is read as float32, exactly."""

MAX_ENTRIES = 100_000
"""Tensors in one file; more is refused before anything is built."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored tensor: its shape and element type (NumPy's spelling, or `bfloat16`)."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


class WeightStore(ABC):
    """Named tensors. `source` is how messages call it."""

    def __init__(self, source: str) -> None:
        self.source = source

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes that the weights tell apart, where the source says them."""
        return None

    @property
    def trained(self) -> Trained:
        """What the source remembers of its training."""
        return Trained()

    @property
    @abstractmethod
    def entries(self) -> Mapping[str, Entry]:
        """What is stored, by name, in file order. Reads no tensor data."""

    @abstractmethod
    def read(self, name: str) -> NDArray[Any]:
        """One tensor, perhaps a read-only view of the file. Raises WeightError if damaged."""


class ArrayStore(WeightStore):
    """Arrays that the caller already has."""

    def __init__(self, arrays: Mapping[str, Any], source: str = "the given arrays") -> None:
        super().__init__(source)
        self._arrays = {name: _as_array(name, value) for name, value in arrays.items()}

    @property
    def entries(self) -> Mapping[str, Entry]:
        return {name: Entry(a.shape, a.dtype.name) for name, a in self._arrays.items()}

    def read(self, name: str) -> NDArray[Any]:
        return self._arrays[name]


class Renamed(WeightStore):
    """Another store's entries under other names; one whose new name is another's keeps its own."""

    def __init__(self, store: WeightStore, name: Callable[[str], str]) -> None:
        super().__init__(store.source)
        self._store = store
        self._names: dict[str, str] = {}
        for old in store.entries:
            new = name(old)
            self._names[old if new in self._names or new in store.entries else new] = old

    @property
    def entries(self) -> Mapping[str, Entry]:
        entries = self._store.entries
        return {new: entries[old] for new, old in self._names.items()}

    def read(self, name: str) -> NDArray[Any]:
        return self._store.read(self._names[name])


def _as_array(name: str, value: Any) -> NDArray[Any]:
    array = array_of(f"the weight {name}", value, WeightError)
    if array.dtype.kind not in "fiub":
        raise WeightError(f"the weight {name} holds {array.dtype}, not numbers")
    return array


_ENDINGS = (".safetensors", ".npz", ".pth", ".pt", ".ckpt")
_LISTED = 1_000


def _beside(path: Path) -> str:
    """Help for a file that is not there: the one with nearly its name, or the only one."""
    try:
        names = [entry.name for entry in islice(os.scandir(path.parent), _LISTED)]
    except OSError:
        return ""
    files = [name for name in names if name.endswith(_ENDINGS)]
    near = nearest(path.name, files)
    if near is not None:
        return f"; did you mean {path.with_name(near)}?"
    return f"; {path.with_name(files[0])} is one" if len(files) == 1 else ""


def regular_file(path: Path) -> int:
    """The size of a plain file; a WeightError for whatever else stands at `path`."""
    try:
        if not path.exists():
            help = "\nhelp: random:0 draws them" if str(path).lower() in ("random", "rand") else ""
            raise WeightError(f"there is no weight file {path}{help or _beside(path)}")
        if not path.is_file():
            kind = "a directory" if path.is_dir() else "no regular file"
            kept = path / "weights.safetensors"  # what a run of training leaves
            meant = f"; did you mean {kept}?" if kept.is_file() else ""
            raise WeightError(f"the weights {path} are {kind}{meant}")
        return path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the name
        raise WeightError(f"cannot read the weights {path}: {reason(error)}") from None


def shown(name: str) -> str:
    """A name out of a stranger's file, fit for a terminal: no control codes, not endless."""
    text = name if name.isprintable() else ascii(name)
    return text if len(text) <= 120 else f"{text[:117]}..."

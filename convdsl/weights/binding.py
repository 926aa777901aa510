"""Weights meet a model: names, shapes and types are checked, all mismatches told at once."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convdsl.diagnostics import WeightError
from convdsl.ir.graph import StateNode
from convdsl.ir.opdef import Role
from convdsl.tensor import TensorType
from convdsl.tensor.conversion import convert, of_numpy
from convdsl.weights.initialisers import RandomWeights, fan_in
from convdsl.weights.store import BFLOAT16, Entry, WeightStore, shown

IGNORED = ("num_batches_tracked",)
"""Last parts of names that files commonly hold and inference never needs."""

AUXILIARY = ("aux1", "aux2")
"""First parts of names of the heads that GoogLeNet has in training only; its published files
hold their weights."""

_FLOATS = ("float64", "float32", "float16", BFLOAT16)
_SUGGESTIONS = 25  # names to look for near misses; a wholly foreign file needs none


class Bound(dict[str, NDArray[Any]]):
    """Every state's array by name, contiguous and of the model's type, and what was said of it.

    ignored: names in the source that no model needs. converted: how many arrays came in
    another element type, by that type.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.ignored: tuple[str, ...] = ()
        self.converted: Counter[str] = Counter()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should hear."""
        notes: list[str] = []
        if self.ignored:
            counts = Counter(map(_kind, self.ignored))
            notes += [f"ignored {n} entries {kind}" for kind, n in counts.items()]
        notes += [f"converted {n} arrays from {dtype}" for dtype, n in self.converted.items()]
        return tuple(notes)


def bind(store: WeightStore | RandomWeights, states: Mapping[str, StateNode]) -> Bound:
    """The array of every state. Constants come from the model, the others from `store`.

    Raises WeightError with every name that is missing or unexpected and every shape or type
    that differs; nothing is read from the store before all of them fit.
    """
    bound = Bound(store.source)
    wanted = {name: state for name, state in states.items() if state.role is not Role.CONSTANT}
    for name, state in states.items():
        if state.role is Role.CONSTANT:
            bound[name] = np.ascontiguousarray(state.data, state.type.dtype.numpy)
    if isinstance(store, RandomWeights):
        for name, state in wanted.items():
            bound[name] = _random(store, name, state, states)
    else:
        _check(store, wanted, bound)
        for name, state in wanted.items():
            array = store.read(name)
            dtype = state.type.dtype
            if array.dtype != dtype.numpy:
                bound.converted[store.entries[name].dtype] += 1
                array = convert(array, of_numpy(array.dtype), dtype)
            bound[name] = np.ascontiguousarray(array, dtype.numpy).reshape(array.shape)
    return bound


def _random(
    store: RandomWeights, name: str, state: StateNode, states: Mapping[str, StateNode]
) -> NDArray[Any]:
    shape = _shape(state.type)
    # A bias knows its layer's fan-in only through the weight beside it.
    sibling = states.get(f"{name.rpartition('.')[0]}.weight", state)
    fan = fan_in(_shape(sibling.type))
    dtype = state.type.dtype
    made = store.make(name, shape, dtype.computed.numpy, state.init, fan)
    return convert(made, dtype.computed, dtype)


def _shape(type: TensorType) -> tuple[int, ...]:
    shape = tuple(extent for extent in type.shape if isinstance(extent, int))
    if len(shape) != type.rank:
        raise WeightError(f"the shape {type} of a weight is not known yet: bind its symbols first")
    return shape


def _check(store: WeightStore, wanted: Mapping[str, StateNode], bound: Bound) -> None:
    entries = store.entries
    missing = [name for name in wanted if name not in entries]
    extra = [name for name in entries if name not in wanted]
    bound.ignored = tuple(name for name in extra if _needless(name, store, bound))
    ignored = set(bound.ignored)
    extra = [name for name in extra if name not in ignored]
    lines: list[str] = []
    for name, state in wanted.items():
        if name in entries:
            lines += _differences(name, entries[name], state.type)
    lines += _missing(missing, extra, wanted)
    for name in extra:
        known = "the text fixes other values" if name in bound else "not in the model"
        lines.append(f"{shown(name)}: in the file, {known}")
    if not lines:
        return
    hint = _prefix_hint(missing, extra)
    count = "1 mismatch" if len(lines) == 1 else f"{len(lines)} mismatches"
    text = [f"the weights {store.source} do not fit the model ({count}):", *lines]
    raise WeightError("\n  ".join(text) + (f"\nhelp: {hint}" if hint else ""))


def _needless(name: str, store: WeightStore, constants: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the source may hold `name`: a usual extra, or a constant of the text repeated."""
    if _kind(name) in (*IGNORED, *AUXILIARY):
        return True
    constant = constants.get(name)
    if constant is None or store.entries[name].shape != constant.shape:
        return False
    return np.array_equal(store.read(name).astype(constant.dtype), constant)


def _kind(name: str) -> str:
    """What tells entries that may be needless apart: an auxiliary head, or the last part."""
    parts = name.split(".")
    return parts[0] if parts[0] in AUXILIARY else parts[-1]


def _differences(name: str, entry: Entry, type: TensorType) -> list[str]:
    if entry.shape != _shape(type):
        return [f"{name}: the file has {entry}, the model needs {type}"]
    if entry.dtype in _FLOATS and type.dtype.is_float:
        return []
    if entry.dtype == type.dtype.numpy:
        return []
    return [f"{name}: the file holds {entry.dtype}, the model needs {type.dtype}"]


def _missing(
    missing: Sequence[str], extra: Sequence[str], wanted: Mapping[str, StateNode]
) -> list[str]:
    lines: list[str] = []
    for index, name in enumerate(missing):
        close: list[str] = []
        if index < _SUGGESTIONS and len(extra) <= 2000:
            close = difflib.get_close_matches(name, extra, n=1, cutoff=0.75)
        near = f"; did you mean {shown(close[0])}?" if close else ""
        lines.append(f"{name}: not in the file, the model needs {wanted[name].type}{near}")
    return lines


def _prefix_hint(missing: Sequence[str], extra: Sequence[str]) -> str:
    """Files saved from a wrapper differ by one prefix in every name."""
    if missing and extra:
        for wrapped, plain, words in (
            (extra, missing, "the file's names begin with {}, the model's do not"),
            (missing, extra, "the model's names begin with {}, the file's do not"),
        ):
            prefix = wrapped[0].partition(".")[0] + "."
            stripped = {n.removeprefix(prefix) for n in wrapped if n.startswith(prefix)}
            if len(stripped & set(plain)) * 2 > len(plain):
                return words.format(f"`{shown(prefix)}`")
    return ""

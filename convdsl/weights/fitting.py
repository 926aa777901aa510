"""What of a store a model takes: names, shapes and types compared, all mismatches told at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convdsl.diagnostics import MismatchError, WeightError
from convdsl.ir.graph import StateNode
from convdsl.ir.opdef import Role
from convdsl.tensor import TensorType
from convdsl.tensor.conversion import convert, of_numpy
from convdsl.weights.naming import absences, naming_hint
from convdsl.weights.store import BFLOAT16, Entry, Renamed, WeightStore, shown

IGNORED = ("num_batches_tracked",)
"""Last parts of names that files commonly hold and inference never needs."""

AUXILIARY = ("aux1", "aux2", "AuxLogits")
"""First parts of names of the heads that GoogLeNet and Inception-v3 have in training only; their
published files hold their weights."""

WRAPPERS = ("module.", "model.", "_orig_mod.")
"""What DataParallel, training frameworks and torch.compile put before a network's own names."""

_INSIDE = ("module", "_orig_mod")
"""Parts of names that stand before a layer's own, where layers were wrapped one by one."""

_FLOATS = ("float64", "float32", "float16", BFLOAT16)


@dataclass(frozen=True)
class Fit:
    """A store against a model's states.

    ignored: names that no model needs. lines: what does not fit. stripped: what was taken off
    names so that all fit. hint: what may help.
    """

    store: WeightStore
    ignored: tuple[str, ...]
    lines: tuple[str, ...]
    stripped: str = ""
    hint: str = ""


def fit(store: WeightStore, states: Mapping[str, StateNode], idle: Collection[str] = ()) -> Fit:
    """How a store fits, its names as they are, or without wrappers where all of them fit then. It
    may lack `idle` states.
    Raises WeightError with every name that is missing or unexpected and every shape or type that
    differs."""
    found = _compared(store, states, idle)
    if not found.lines:
        return found
    for stripped, plain in _unwrapped(store, states):
        other = _compared(plain, states, idle, stripped)
        if not other.lines:
            return other
    lines = found.lines
    count = "1 mismatch" if len(lines) == 1 else f"{len(lines)} mismatches"
    text = [f"the weights in {store.source} do not fit the model ({count}):", *lines]
    raise MismatchError("\n  ".join(text) + (f"\nhelp: {found.hint}" if found.hint else ""))


def closest(store: WeightStore, states: Mapping[str, StateNode]) -> WeightStore:
    """The store with its names as they are, or without wrappers where more of them are the
    model's then."""
    ways = (store, *(plain for _, plain in _unwrapped(store, states)))
    return max(ways, key=lambda way: sum(name in states for name in way.entries))


def _unwrapped(
    store: WeightStore, states: Mapping[str, StateNode]
) -> Iterator[tuple[str, WeightStore]]:
    """The store without what wrappers put before names, one after the other, and inside them."""
    for wanted in (name for name in store.entries if name not in states):
        prefix, rest = "", wanted
        while rest.startswith(WRAPPERS):
            part = rest.partition(".")[0] + "."
            prefix, rest = prefix + part, rest.removeprefix(part)
            yield f"`{prefix}`", Renamed(store, _without(prefix))
        break
    if any(part in name.split(".") for part in _INSIDE for name in store.entries):
        yield " and ".join(f"`{part}.`" for part in _INSIDE), Renamed(store, _bare)


def _without(prefix: str) -> Callable[[str], str]:
    return lambda name: name.removeprefix(prefix)


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _INSIDE)


def _compared(
    store: WeightStore,
    states: Mapping[str, StateNode],
    idle: Collection[str],
    stripped: str = "",
) -> Fit:
    entries = store.entries
    wanted = {name: state for name, state in states.items() if state.role is not Role.CONSTANT}
    missing = [name for name in wanted if name not in entries and name not in idle]
    extra = [name for name in entries if name not in wanted]
    ignored = tuple(name for name in extra if _needless(name, store, states))
    extra = [name for name in extra if name not in set(ignored)]
    lines: list[str] = []
    for name, state in wanted.items():
        if name in entries:
            lines += differences(name, entries[name], state.type)
    lacking = {name: wanted[name].type for name in missing}
    held = {name: entries[name] for name in extra}
    lines += absences(lacking, held)
    for name in extra:
        known = "the text fixes other values" if name in states else "not in the model"
        lines.append(f"{shown(name)}: in the file, {known}")
    hint = naming_hint(lacking, held)
    if not hint and extra and missing and len(missing) == len(wanted):
        some = ", ".join(shown(name) for name in extra[:4]) + (", ..." if extra[4:] else "")
        hint = f"none of the model's weights is there, but {some}: another network's, or data"
    return Fit(store, ignored, tuple(lines), stripped, hint)


def _needless(name: str, store: WeightStore, states: Mapping[str, StateNode]) -> bool:
    """Whether the source may hold `name`: a usual extra, or a constant of the text repeated."""
    if kind_of(name) in (*IGNORED, *AUXILIARY):
        return True
    constant = states.get(name)
    if constant is None or store.entries[name].shape != np.shape(constant.data):
        return False
    dtype = constant.type.dtype
    found: NDArray[Any] = store.read(name).astype(dtype.computed.numpy)
    held = np.asarray(constant.data)
    held = convert(held, of_numpy(held.dtype), dtype)
    return np.array_equal(convert(found, dtype.computed, dtype), held)


def kind_of(name: str) -> str:
    """What tells entries that may be needless apart: an auxiliary head, or the last part."""
    parts = name.split(".")
    return parts[0] if parts[0] in AUXILIARY else parts[-1]


def shape_of(type: TensorType) -> tuple[int, ...]:
    """The sizes of a weight. Raises WeightError where one is a symbol."""
    shape = tuple(extent for extent in type.shape if isinstance(extent, int))
    if len(shape) != type.rank:
        raise WeightError(f"the shape {type} of a weight is not known yet: bind its symbols first")
    return shape


def differences(name: str, entry: Entry, type: TensorType) -> list[str]:
    """What keeps a stored tensor from being a weight of a type, as lines to be read."""
    if entry.shape != shape_of(type):
        return [f"{name}: the file has {entry}, the model needs {type}"]
    if entry.dtype in _FLOATS and type.dtype.is_float:
        return []
    if entry.dtype == type.dtype.numpy:
        return []
    return [f"{name}: the file holds {entry.dtype}, the model needs {type.dtype}"]

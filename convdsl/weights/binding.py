"""Weights meet a model: names, shapes and types are checked, all mismatches told at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from convdsl.ir.graph import StateNode
from convdsl.ir.opdef import Role
from convdsl.tensor import TensorType
from convdsl.tensor.conversion import convert, of_numpy
from convdsl.weights.fitting import fit, kind_of, shape_of
from convdsl.weights.initialisers import RandomWeights, fan_in
from convdsl.weights.store import WeightStore


class Bound(dict[str, NDArray[Any]]):
    """Every state's array by name, contiguous and of the model's type, and what was said of it.

    ignored: names in the source that no model needs. converted: how many arrays came in
    another element type, by that type. stripped: what was taken off names. odd: how many elements
    of a weight are not finite.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.ignored: tuple[str, ...] = ()
        self.converted: Counter[str] = Counter()
        self.stripped = ""
        self.odd: dict[str, int] = {}

    def _first_odd(self) -> list[tuple[str, int]]:
        return list(self.odd.items())[:_TOLD]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should hear."""
        notes = [f"took {self.stripped} off the names of the weights"] if self.stripped else []
        if self.ignored:
            counts = Counter(map(kind_of, self.ignored))
            notes += [f"ignored {n} entries {kind}" for kind, n in counts.items()]
        notes += [f"converted {n} arrays from {dtype}" for dtype, n in self.converted.items()]
        notes += [
            f"not finite: {n:,} of {self[name].size:,} elements of {name}"
            for name, n in self._first_odd()
        ]
        if len(self.odd) > _TOLD:
            notes.append(f"{len(self.odd) - _TOLD} more weights are not finite")
        return tuple(notes)


_TOLD = 5
"""Weights that are not finite, which are named."""


def _odd(array: NDArray[Any]) -> int:
    """How many elements are no numbers, or infinite. The sum is enough where it is finite."""
    with np.errstate(all="ignore"):
        if array.dtype.kind != "f" or np.isfinite(array.sum(dtype=np.float64)):
            return 0
    return int(array.size - np.isfinite(array).sum())


def bind(
    store: WeightStore | RandomWeights,
    states: Mapping[str, StateNode],
    idle: Collection[str] = (),
) -> Bound:
    """The array of every state. Constants come from the model, the others from `store`, which may
    lack those that are `idle`: no output depends on them.

    Raises WeightError with every name that is missing or unexpected and every shape or type
    that differs; nothing is read from the store before all of them fit.
    """
    bound = Bound(store.source)
    wanted = {name: state for name, state in states.items() if state.role is not Role.CONSTANT}
    for name, state in states.items():
        if state.role is Role.CONSTANT:
            bound[name] = np.asarray(state.data, state.type.dtype.numpy, order="C")
    if isinstance(store, RandomWeights):
        for name, state in wanted.items():
            bound[name] = _random(store, name, state, states)
    else:
        fitting = fit(store, states, idle)
        store, bound.ignored, bound.stripped = fitting.store, fitting.ignored, fitting.stripped
        for name, state in wanted.items():
            if name in idle and name not in store.entries:
                continue
            bound[name] = read_fitting(store, name, state.type, bound.converted)
            if count := _odd(bound[name]):
                bound.odd[name] = count
    return bound


def read_fitting(
    store: WeightStore, name: str, type: TensorType, converted: Counter[str]
) -> NDArray[Any]:
    """An array that fits a type, contiguous and of that type; conversions are counted."""
    array, dtype = store.read(name), type.dtype
    if array.dtype != dtype.numpy:
        converted[store.entries[name].dtype] += 1
        array = convert(array, of_numpy(array.dtype), dtype)
    return np.asarray(array, dtype.numpy, order="C")


def _random(
    store: RandomWeights, name: str, state: StateNode, states: Mapping[str, StateNode]
) -> NDArray[Any]:
    shape = shape_of(state.type)
    # A bias knows its layer's fan-in only through the weight beside it.
    sibling = states.get(f"{name.rpartition('.')[0]}.weight", state)
    fan = fan_in(shape_of(sibling.type))
    dtype = state.type.dtype
    made = store.make(name, shape, dtype.computed.numpy, state.init, fan)
    return convert(made, dtype.computed, dtype)

"""Weights of another network, as far as they fit: the start of fine-tuning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from numpy.typing import NDArray

from convdsl.diagnostics import WeightError
from convdsl.ir.graph import StateNode
from convdsl.ir.opdef import Role
from convdsl.weights.binding import bind, read_fitting
from convdsl.weights.fitting import IGNORED, closest, differences, kind_of
from convdsl.weights.initialisers import RandomWeights
from convdsl.weights.naming import naming_hint
from convdsl.weights.store import WeightStore, shown


@dataclass(frozen=True, slots=True)
class Taken:
    """Arrays of every state by name, and where they come from.

    taken: names of those from the source. drawn: those begun anew, with the reason. unused: what
    the source has besides.
    """

    arrays: Mapping[str, NDArray[Any]]
    taken: tuple[str, ...]
    drawn: Mapping[str, str]
    unused: tuple[str, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should hear: nothing is left out silently."""
        found = [f"took {len(self.taken)} of {len(self.taken) + len(self.drawn)} weights"]
        found += [f"begun anew: {reason}" for reason in self.drawn.values()]
        known = [name for name in self.unused if kind_of(name) in IGNORED]
        found += [f"ignored {n} entries {kind}" for kind, n in Counter(map(kind_of, known)).items()]
        found += [f"not used: {shown(name)}" for name in self.unused if name not in known]
        return tuple(found)


def bind_partially(store: WeightStore, states: Mapping[str, StateNode], seed: int) -> Taken:
    """What fits by name, shape and kind of number is taken from `store`; the rest is drawn anew.

    Raises WeightError where nothing fits: that is the file of some other network.
    """
    bound, store = bind(RandomWeights(seed), states), closest(store, states)
    taken: list[str] = []
    drawn: dict[str, str] = {}
    entries = store.entries
    for name, state in states.items():
        if state.role is Role.CONSTANT:
            continue
        if name not in entries:
            drawn[name] = f"{name}: not in the file"
        elif found := differences(name, entries[name], state.type):
            drawn[name] = found[0]
        else:
            bound[name] = read_fitting(store, name, state.type, bound.converted)
            taken.append(name)
    if not taken:
        text = f"none of the weights in {store.source} fits the model"
        wanted = {n: s.type for n, s in states.items() if s.role is not Role.CONSTANT}
        held = {name: entry for name, entry in entries.items() if kind_of(name) not in IGNORED}
        hint = naming_hint(wanted, held)
        hint = hint or f"it holds {_some(held)}, the model {_some(wanted)}"
        raise WeightError(f"{text}\nhelp: {hint}; without --partial all that differs is listed")
    unused = tuple(name for name in entries if name not in states)
    return Taken(bound, tuple(taken), drawn, unused)


def _some(named: Mapping[str, object]) -> str:
    """A few of the tensors, with their types."""
    said = ", ".join(f"{shown(name)} {type}" for name, type in islice(named.items(), 3))
    return (said or "nothing") + (", ..." if len(named) > 3 else "")

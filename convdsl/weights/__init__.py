"""Weights from files, arrays or initialisers, checked against a model before use.

Everything is loaded on first use: reading arrays for `convdsl run` needs no graphs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convdsl.weights.binding import Bound, bind
    from convdsl.weights.initialisers import RandomWeights
    from convdsl.weights.loading import load
    from convdsl.weights.store import ArrayStore, Entry, WeightStore

__all__ = ["ArrayStore", "Bound", "Entry", "RandomWeights", "WeightStore", "bind", "load"]

_HOMES = {
    "Bound": "binding",
    "bind": "binding",
    "RandomWeights": "initialisers",
    "load": "loading",
    "ArrayStore": "store",
    "Entry": "store",
    "WeightStore": "store",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'convdsl.weights' has no attribute {name!r}")
    return getattr(import_module(f"convdsl.weights.{_HOMES[name]}"), name)

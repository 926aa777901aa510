"""Optimisers: how a parameter follows from its gradient and from what went before.

Each is a pure recurrence on the graph: the new parameter and the new slots, from the old ones. What
is one number (rates, corrections of means) is computed in double precision; the rest is elementwise
in the parameter's type, so that fusion makes one pass of it and lowering writes in place. Arguments
and their defaults stand in `ir.techniques`.
"""

from __future__ import annotations

from collections.abc import Mapping

from convdsl.training.optimisers.descent import LION, SGD
from convdsl.training.optimisers.layers import LAMB, LARS
from convdsl.training.optimisers.moments import (
    ADABOUND,
    ADAM,
    ADAMAX,
    ADAMW,
    AMSGRAD,
    NADAM,
    RADAM,
)
from convdsl.training.optimisers.record import Arguments, Optimiser, Slot, Update
from convdsl.training.optimisers.squares import ADADELTA, ADAGRAD, RMSPROP

OPTIMISERS: Mapping[str, Optimiser] = {
    "sgd": SGD,
    "adagrad": ADAGRAD,
    "adadelta": ADADELTA,
    "rmsprop": RMSPROP,
    "adam": ADAM,
    "adamw": ADAMW,
    "adamax": ADAMAX,
    "nadam": NADAM,
    "radam": RADAM,
    "lion": LION,
    "lamb": LAMB,
    "lars": LARS,
    "amsgrad": AMSGRAD,
    "adabound": ADABOUND,
}
"""Optimisers by the names that the language gives them."""

__all__ = ["OPTIMISERS", "Arguments", "Optimiser", "Slot", "Update"]

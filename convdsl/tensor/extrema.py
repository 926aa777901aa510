"""The smallest and the largest of sizes, without those that another is proven to be beyond."""

from __future__ import annotations

from convdsl.tensor.dim import Dim, Extremum, SymDim
from convdsl.tensor.proof import bounds


def dim_min(*values: Dim) -> Dim:
    """The smallest of some sizes, as exact as is known."""
    return extremum("min", values)


def dim_max(*values: Dim) -> Dim:
    """The largest of some sizes, as exact as is known."""
    return extremum("max", values)


def extremum(kind: str, values: tuple[Dim, ...]) -> Dim:
    """The `min` or `max` of sizes, without those that another is provably beyond."""
    if len(set(values)) == 1:
        return values[0]
    kept: list[Dim] = []
    for value in values:
        if any(_dominates(kind, other, value) for other in kept):
            continue
        kept = [other for other in kept if not _dominates(kind, value, other)]
        kept.append(value)
    if len(kept) == 1:
        return kept[0]
    return SymDim({((Extremum(kind, tuple(sorted(kept, key=str))), 1),): 1})


def _dominates(kind: str, winner: Dim, loser: Dim) -> bool:
    low, high = bounds(winner - loser)
    return (high is not None and high <= 0) if kind == "min" else (low is not None and low >= 0)

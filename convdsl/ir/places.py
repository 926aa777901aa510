"""Places in a tensor: as one row-major number, and as a row of positions along its first axes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from convdsl.ir.opdef import Call, OpError
from convdsl.ir.shapes import disagreement, known_size
from convdsl.tensor import Dim, DType


def resolve_places(call: Call) -> Mapping[str, Any]:
    """positions[b.., p.., R] of i64: `batch` axes as those of x, and rows of a known length R that
    say a place along as many axes of x after these. Raises OpError for others."""
    x, positions, batch = call.type("x"), call.type("positions"), call.attributes.get("batch", 0)
    if positions.dtype is not DType.I64:
        help = ("cut off what stands behind the point: `cast(positions, i64)`",)
        raise OpError(f"positions are i64, not {positions}", operands=("positions",), help=help)
    if positions.rank <= batch or x.rank <= batch:
        raise OpError(
            f"{x} and {positions} have not {batch} axes in common and more",
            attributes=("batch",),
            operands=("positions", "x"),
        )
    for own, other in zip(x.shape[:batch], positions.shape[:batch], strict=True):
        if own != other:
            what = f"{x} and {positions} have not {batch} axes in common"
            raise disagreement(what, own, other, ("positions", "x"))
    said = known_size(call, "positions", positions.rank - 1)
    if not 1 <= said <= x.rank - batch:
        raise OpError(
            f"a place in {x} after {batch} axes has 1 to {x.rank - batch} positions, not {said}",
            operands=("positions", "x"),
        )
    return call.attributes


def row_major(at: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    """Positions along axes as one number."""
    number: Dim = 0
    for place, extent in zip(at, shape, strict=True):
        number = number * extent + place
    return number


def digits(number: Dim, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """A row-major number as positions along axes."""
    found: list[Dim] = []
    for k, _ in enumerate(shape):
        below: Dim = prod(shape[k + 1 :])
        digit = number // below
        found.append(digit if k == 0 else digit % shape[k])
    return tuple(found)

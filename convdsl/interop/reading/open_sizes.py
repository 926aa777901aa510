"""Arithmetic on sizes that are free: exact, or left until they are bound.

An array of objects holds integers and symbolic sizes. A result is exact for every binding, or there
is none: `Undecided`. Nothing is rounded, and what cannot be proven is not taken for false.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from convdsl.interop.element_types import INTEGERS, TO_ONNX
from convdsl.interop.reading.tensors import Array, Undecided
from convdsl.tensor import Dim, DType, bounds, dim_max, dim_min, exact_div, floor_div, provably

OpenFold: TypeAlias = Callable[[Sequence[Array], Mapping[str, Any]], Array]


def cast_open(x: Array, to: int) -> Array:
    """Integers of 32 bits and more hold every size; floating-point numbers round large ones."""
    if to in (TO_ONNX[DType.I64], *_WIDE):
        return x
    if to == TO_ONNX[DType.BOOL]:
        return _elementwise(_holds, bool)([x], {})
    raise Undecided("a free size becomes a number of another type")


_WIDE = (TO_ONNX[DType.I32], *INTEGERS[2:])
"""int32, uint32, uint64."""


def reduce_open(kind: str) -> Any:
    """Sums and products of free sizes."""
    return {"ReduceSum": np.sum, "ReduceProd": np.prod}[kind]


# One element


def _divided(a: Dim, b: Dim) -> Dim:
    """ONNX divides towards zero, which is downwards where nothing is negative."""
    exact = exact_div(a, b)
    if exact is not None:
        return exact
    return floor_div(_not_negative(a), _positive(b))


def _remainder(a: Dim, b: Dim) -> Dim:
    return a - floor_div(a, _positive(b)) * b


def _cut_remainder(a: Dim, b: Dim) -> Dim:
    return _remainder(_not_negative(a), b)


def _power(a: Dim, b: Dim) -> Dim:
    if not isinstance(b, int) or not 0 <= b <= _HIGHEST:
        raise Undecided(f"{a} to the power of {b}")
    result: Dim = 1
    for _ in range(b):
        result = result * a
    return result


_HIGHEST = 8
"""The highest power of a symbol that is written out."""


def _positive(x: Dim) -> Dim:
    low, _ = bounds(x)
    if low is None or low < 1:
        raise Undecided(f"whether {x} is positive is open")
    return x


def _not_negative(x: Dim) -> Dim:
    low, _ = bounds(x)
    if low is None or low < 0:
        raise Undecided(f"whether {x} is negative is open")
    return x


def _equal(a: Dim, b: Dim) -> bool:
    if a == b:
        return True
    low, high = bounds(a - b)
    if (low is not None and low > 0) or (high is not None and high < 0):
        return False
    raise Undecided(f"whether {a} is {b} is open")


def _greater(a: Dim, b: Dim) -> bool:
    if provably(">", a, b):
        return True
    if provably(">=", b, a):
        return False
    raise Undecided(f"whether {a} > {b} is open")


def _less(a: Dim, b: Dim) -> bool:
    return _greater(b, a)


def _at_least(a: Dim, b: Dim) -> bool:
    return not _greater(b, a)


def _at_most(a: Dim, b: Dim) -> bool:
    return not _greater(a, b)


def _holds(x: Dim) -> bool:
    return not _equal(x, 0)


def _sign(x: Dim) -> int:
    return 0 if _equal(x, 0) else 1 if _greater(x, 0) else -1


# All elements


def _elementwise(function: Callable[..., Any], type: Any = object) -> OpenFold:
    """A function of single elements over arrays that broadcast."""

    def apply(inputs: Sequence[Array], _: Mapping[str, Any]) -> Array:
        if any(x.dtype.kind not in "Oi" for x in inputs):
            raise Undecided("arithmetic of a free size and other numbers")
        whole = [x.astype(object) for x in inputs]
        return np.asarray(np.frompyfunc(function, len(inputs), 1)(*whole), type)

    return apply


def _from_left(function: Callable[..., Any]) -> OpenFold:
    """A function of two elements over all inputs, from the left."""
    return lambda inputs, a: reduce(lambda x, y: _elementwise(function)([x, y], a), inputs)


def _mod(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    function = _cut_remainder if attributes.get("fmod", 0) else _remainder
    return _elementwise(function)(inputs, attributes)


def _clip(inputs: Sequence[Array], attributes: Mapping[str, Any]) -> Array:
    x, *limits = inputs
    for function, limit in zip((dim_max, dim_min), limits, strict=False):
        x = _elementwise(function)([x, limit], attributes)
    return x


ELEMENTWISE: Mapping[str, OpenFold] = {
    "Add": _elementwise(operator.add),
    "Sub": _elementwise(operator.sub),
    "Mul": _elementwise(operator.mul),
    "Div": _elementwise(_divided),
    "Mod": _mod,
    "Pow": _elementwise(_power),
    "Neg": _elementwise(operator.neg),
    "Abs": _elementwise(_not_negative),
    "Sign": _elementwise(_sign),
    "Min": _from_left(dim_min),
    "Max": _from_left(dim_max),
    "Sum": _from_left(operator.add),
    "Clip": _clip,
    "Equal": _elementwise(_equal, bool),
    "Greater": _elementwise(_greater, bool),
    "Less": _elementwise(_less, bool),
    "GreaterOrEqual": _elementwise(_at_least, bool),
    "LessOrEqual": _elementwise(_at_most, bool),
}
"""Arithmetic of sizes, by ONNX's kinds of nodes."""

"""Arithmetic on what is known while reading: shapes, sizes, axes, and views of weights.

Sizes that are free take part as symbols: `open_sizes` has the arithmetic that is exact for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from math import ceil, isfinite
from typing import Any, TypeAlias

import numpy as np
from onnx import helper

from convdsl.interop.element_types import FROM_ONNX, HALVES, INTEGERS
from convdsl.interop.reading.open_sizes import ELEMENTWISE, cast_open, reduce_open
from convdsl.interop.reading.tensors import (
    Array,
    Known,
    ReadError,
    Undecided,
    integers,
    known,
)
from convdsl.tensor import Dim, DType
from convdsl.tensor.conversion import convert, of_numpy

LARGEST = 1 << 16
"""Elements of a result that is computed while reading; larger ones are left to weight time."""

LARGEST_WHOLE = 1 << 22
"""The same of integers and masks, which are positions and no weights: a whole image's, say."""

LARGEST_MADE = 1 << 28
"""Elements that a network may make of a few; beyond, a small file asks for a machine's memory."""

Attributes: TypeAlias = Mapping[str, Any]
Fold: TypeAlias = Callable[[Sequence[Array], Attributes], Array]


class TooLarge(ReadError):
    """A result that the graph had better make, if it can."""


def fold(kind: str, inputs: Sequence[Known], attributes: Attributes) -> Known | None:
    """The result, or None where it has to be left to the graph. Raises Undecided where free sizes
    have to be bound first."""
    try:
        return _fold(kind, inputs, attributes)
    except TooLarge:
        if kind in _BY_THE_GRAPH:
            return None
        raise


def fold_some(kind: str, inputs: Sequence[Known | None], attributes: Attributes) -> Known | None:
    """The same where inputs between others are left out, as limits of Clip and axes of Slice."""
    given = [x for x in inputs if x is not None]
    if kind == "Clip" and len(inputs) == 3 and inputs[1] is None and not given[0].is_symbolic:
        x, high = given
        return fold("Min", [x, known(np.asarray(high.array, x.array.dtype))], {})
    if kind == "Slice" and len(inputs) == 5 and inputs[3] is None:
        x, starts, stops, steps = given
        axes = known(np.arange(starts.array.size))
        return fold("Slice", [x, starts, stops, axes, steps], {})
    return None


def _fold(kind: str, inputs: Sequence[Known], attributes: Attributes) -> Known | None:
    arrays = [x.array for x in inputs]
    is_open = [x.is_symbolic for x in inputs]
    if any(is_open) and kind not in ELEMENTWISE:
        return _moved(kind, inputs, attributes)
    if kind in VIEWS:
        return Known(VIEWS[kind](arrays, attributes), inputs[0].name)
    if kind not in FOLDS or any(map(_is_large, arrays)):
        return None
    if any(is_open):
        return known(ELEMENTWISE[kind](arrays, attributes))
    with np.errstate(all="ignore"):
        return known(FOLDS[kind](arrays, attributes))


def _is_large(array: Array) -> bool:
    return array.size > (LARGEST if array.dtype.kind == "f" else LARGEST_WHOLE)


def _moved(kind: str, inputs: Sequence[Known], attributes: Attributes) -> Known | None:
    """Free sizes that go elsewhere as they are; what is moved by free sizes waits for them, or is
    left to the graph, which can repeat what is known as often as a symbol says."""
    arrays = [x.array for x in inputs]
    if kind == "Cast":
        return known(cast_open(arrays[0], attributes["to"]))
    if kind in ("ReduceSum", "ReduceProd") and not any(x.is_symbolic for x in inputs[1:]):
        return known(_reduced(reduce_open(kind))(arrays, attributes))
    moving = _MOVING.get(kind)
    if moving is None:
        raise Undecided(f"{kind} of sizes that are free")
    others = [x for place, x in enumerate(inputs) if place not in moving(len(inputs))]
    if not any(x.is_symbolic for x in others):
        makers = VIEWS if kind in VIEWS else FOLDS
        return known(makers[kind](arrays, attributes))
    if kind in _BY_THE_GRAPH and (kind == "ConstantOfShape" or not inputs[0].is_symbolic):
        return None
    raise Undecided(f"{kind} by sizes that are free")


def checked_shape(sizes: Sequence[Dim], most: int = LARGEST * 16) -> tuple[int, ...]:
    """A shape small enough to be made. Raises TooLarge."""
    total = 1
    shape: list[int] = []
    for size in sizes:
        if not isinstance(size, int | np.integer) or size < 0:
            raise ReadError(f"{size} is no size that a constant can have")
        total *= int(size)
        shape.append(int(size))
    if total > most:
        refusal = TooLarge if total <= LARGEST_MADE else ReadError
        raise refusal(f"a constant of shape {shape} is too large")
    return tuple(shape)


def _most(of: Array) -> int:
    return LARGEST * 16 if of.dtype.kind == "f" else LARGEST_WHOLE


def _axes(inputs: Sequence[Array], attributes: Attributes) -> list[int]:
    if len(inputs) > 1:
        return [int(axis) for axis in inputs[1].reshape(-1)]
    return list(attributes.get("axes", ()))


# Views: no elements are copied, so that weights of any size may pass


def _squeeze(inputs: Sequence[Array], attributes: Attributes) -> Array:
    axes = _axes(inputs, attributes)
    return np.squeeze(inputs[0], tuple(axes) if axes else None)


def _unsqueeze(inputs: Sequence[Array], attributes: Attributes) -> Array:
    return np.expand_dims(inputs[0], tuple(_axes(inputs, attributes)))


def _reshape(inputs: Sequence[Array], attributes: Attributes) -> Array:
    wanted = integers(inputs[1]) if len(inputs) > 1 else list(attributes["shape"])
    if not attributes.get("allowzero"):
        wanted = [inputs[0].shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return inputs[0].reshape(wanted)


def _flatten(inputs: Sequence[Array], attributes: Attributes) -> Array:
    axis = attributes.get("axis", 1) % (inputs[0].ndim + 1)
    rows = int(np.prod(inputs[0].shape[:axis], dtype=np.int64))
    return inputs[0].reshape(rows, -1)


VIEWS: Mapping[str, Fold] = {
    "Identity": lambda inputs, _: inputs[0],
    "Transpose": lambda inputs, a: np.transpose(inputs[0], a.get("perm")),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
}


# Computed


def _slice(inputs: Sequence[Array], attributes: Attributes) -> Array:
    x = inputs[0]
    if len(inputs) > 1:
        starts, stops = integers(inputs[1]), integers(inputs[2])
        axes = integers(inputs[3]) if len(inputs) > 3 else list(range(len(starts)))
        steps = integers(inputs[4]) if len(inputs) > 4 else [1] * len(starts)
    else:
        starts, stops = list(attributes["starts"]), list(attributes["ends"])
        axes = list(attributes.get("axes", range(len(starts))))
        steps = [1] * len(starts)
    where: list[slice] = [slice(None)] * x.ndim
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        end = None if step < 0 and stop < -x.shape[axis] else stop
        where[axis] = slice(start, end, step)
    return x[tuple(where)]


def _divide(inputs: Sequence[Array], _: Attributes) -> Array:
    """Integers divide towards zero."""
    a, b = inputs
    if a.dtype.kind == "f":
        return np.divide(a, b)
    if not np.all(b):
        raise ReadError("division of sizes by zero")
    quotient = np.floor_divide(a, b)
    return quotient + ((quotient < 0) & (quotient * b != a))


def _remainder(inputs: Sequence[Array], attributes: Attributes) -> Array:
    a, b = inputs
    if a.dtype.kind != "f" and not np.all(b):
        raise ReadError("a remainder of sizes by zero")
    return np.fmod(a, b) if attributes.get("fmod", 0) else np.mod(a, b)


def _power(inputs: Sequence[Array], _: Attributes) -> Array:
    """Of the base's type: integers with others go through doubles, and are cut off."""
    base, exponent = inputs
    if base.dtype.kind == exponent.dtype.kind == "i" and np.all(exponent >= 0):
        return np.power(base, exponent)
    if base.dtype.kind == "f" and exponent.dtype == base.dtype:
        return np.power(base, exponent)
    return np.power(base.astype(np.float64), exponent.astype(np.float64)).astype(base.dtype)


def _cast(inputs: Sequence[Array], attributes: Attributes) -> Array:
    """Integers of widths that we have not wrap, and are held in 64 bits; halves are rounded."""
    to = attributes["to"]
    dtype = FROM_ONNX.get(to)
    if dtype is not None:
        cast = convert(inputs[0], of_numpy(inputs[0].dtype), dtype)
        return convert(cast, dtype, DType.F32) if dtype in HALVES else cast
    if to in INTEGERS:
        narrow = helper.tensor_dtype_to_np_dtype(to)
        return inputs[0].astype(np.int64).astype(narrow).astype(np.int64)
    raise ReadError(f"elements of ONNX's type {to} are not supported")


def _scatter_shape(inputs: Sequence[Array], attributes: Attributes) -> Array:
    value = attributes.get("value")
    fill = value.array if isinstance(value, Known) else np.zeros(1, np.float32)
    return np.full(checked_shape(integers(inputs[0]), _most(fill)), fill.reshape(-1)[0], fill.dtype)


def _range(inputs: Sequence[Array], _: Attributes) -> Array:
    """start + i step, for as many i as lie before the stop."""
    start, stop, step = (x.reshape(-1)[0] for x in inputs)
    count = (stop - start) / float(step) if step else np.inf
    if not isfinite(count) or count > LARGEST:
        raise ReadError("a range without end")
    return start + np.arange(max(ceil(count), 0)).astype(inputs[0].dtype) * step


def _expand(inputs: Sequence[Array], _: Attributes) -> Array:
    most = _most(inputs[0])
    shape = np.broadcast_shapes(inputs[0].shape, checked_shape(integers(inputs[1]), most))
    return np.broadcast_to(inputs[0], checked_shape(shape, most))


def _tile(inputs: Sequence[Array], _: Attributes) -> Array:
    repeats = integers(inputs[1])
    shape = [r * size for r, size in zip(repeats, inputs[0].shape, strict=True)]
    checked_shape(shape, _most(inputs[0]))
    return np.tile(inputs[0], repeats)


def _scatter_nd(inputs: Sequence[Array], attributes: Attributes) -> Array:
    """Parts assigned, as PyTorch's exporter writes `mask[:, :3] = 1`."""
    result = inputs[0].copy()
    at = tuple(np.moveaxis(inputs[1].astype(np.int64), -1, 0))
    reduction = attributes.get("reduction", "none")
    if reduction == "none":
        result[at] = inputs[2]
    else:
        _COMBINED[reduction].at(result, at, inputs[2])
    return result


_COMBINED = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _cumsum(inputs: Sequence[Array], attributes: Attributes) -> Array:
    axis = int(inputs[1].reshape(-1)[0])
    x = np.flip(inputs[0], axis) if attributes.get("reverse", 0) else inputs[0]
    total = np.cumsum(x, axis, dtype=x.dtype)
    if attributes.get("exclusive", 0):
        total = np.roll(total, 1, axis)
        np.moveaxis(total, axis, 0)[:1] = 0
    return np.flip(total, axis) if attributes.get("reverse", 0) else total


def _triangle(inputs: Sequence[Array], attributes: Attributes) -> Array:
    diagonal = int(inputs[1].reshape(-1)[0]) if len(inputs) > 1 else 0
    return (np.triu if attributes.get("upper", 1) else np.tril)(inputs[0], diagonal)


def _reduced(function: Any) -> Fold:
    """A reduction by its function of NumPy, along the axes of an attribute or of an input."""

    def apply(inputs: Sequence[Array], attributes: Attributes) -> Array:
        axes = tuple(_axes(inputs, attributes))
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return inputs[0]
        keep = bool(attributes.get("keepdims", 1))
        result = function(inputs[0], axis=axes or None, keepdims=keep)
        return np.asarray(result, inputs[0].dtype)

    return apply


def _mean(x: Array, *, axis: Any, keepdims: bool) -> Array:
    """Integers divide towards zero."""
    total = np.asarray(np.sum(x, axis=axis, keepdims=keepdims))
    count = np.asarray(x.size // max(total.size, 1), x.dtype)
    return _divide([total, count], {})


def _clip(inputs: Sequence[Array], attributes: Attributes) -> Array:
    x, *limits = inputs
    low = limits[0] if limits else attributes.get("min")
    high = limits[1] if len(limits) > 1 else attributes.get("max")
    x = x if low is None else np.maximum(x, np.asarray(low, x.dtype))
    return x if high is None else np.minimum(x, np.asarray(high, x.dtype))


def _over_all(function: Any) -> Fold:
    return lambda inputs, _: reduce(function, inputs)


def _binary(function: Any) -> Fold:
    return lambda inputs, _: np.asarray(function(inputs[0], inputs[1]))


def _unary(function: Any) -> Fold:
    return lambda inputs, _: np.asarray(function(inputs[0]))


FOLDS: Mapping[str, Fold] = {
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _divide,
    "Mod": _remainder,
    "Pow": _power,
    "Equal": _binary(np.equal),
    "Less": _binary(np.less),
    "LessOrEqual": _binary(np.less_equal),
    "Greater": _binary(np.greater),
    "GreaterOrEqual": _binary(np.greater_equal),
    "And": _binary(np.logical_and),
    "Or": _binary(np.logical_or),
    "Xor": _binary(np.logical_xor),
    "Not": _unary(np.logical_not),
    "Neg": _unary(np.negative),
    "Abs": _unary(np.abs),
    "Sign": _unary(np.sign),
    "Floor": _unary(np.floor),
    "Ceil": _unary(np.ceil),
    "Round": _unary(np.rint),
    "Sqrt": _unary(np.sqrt),
    "Exp": _unary(np.exp),
    "Log": _unary(np.log),
    "Sin": _unary(np.sin),
    "Cos": _unary(np.cos),
    "Reciprocal": _unary(np.reciprocal),
    "CumSum": _cumsum,
    "ScatterND": _scatter_nd,
    "Trilu": _triangle,
    "Min": _over_all(np.minimum),
    "Max": _over_all(np.maximum),
    "Sum": _over_all(np.add),
    "Clip": _clip,
    "Cast": _cast,
    "Concat": lambda inputs, a: np.concatenate(list(inputs), a.get("axis", 1)),
    "ConstantOfShape": _scatter_shape,
    "Expand": _expand,
    "Gather": lambda inputs, a: np.take(inputs[0], inputs[1].astype(np.int64), a.get("axis", 0)),
    "Range": _range,
    "ReduceSum": _reduced(np.sum),
    "ReduceProd": _reduced(np.prod),
    "ReduceMax": _reduced(np.max),
    "ReduceMin": _reduced(np.min),
    "ReduceMean": _reduced(_mean),
    "Slice": _slice,
    "Tile": _tile,
    "Where": lambda inputs, _: np.where(inputs[0].astype(bool), inputs[1], inputs[2]),
}

_FIRST: Callable[[int], Sequence[int]] = lambda _: (0,)  # noqa: E731  one of several alike

_MOVING: Mapping[str, Callable[[int], Sequence[int]]] = {
    **dict.fromkeys((*VIEWS, "Expand", "Gather", "Slice", "Tile"), _FIRST),
    "Concat": range,
    "Where": lambda _: (1, 2),
    "ConstantOfShape": lambda _: (),
}
"""Inputs whose elements a kind of node moves without a look at them, by how many inputs it has."""

_BY_THE_GRAPH = ("ConstantOfShape", "Expand", "Reshape", "Tile")
"""What the graph can do by free sizes, and of what is too large to be made while reading."""

"""Arithmetic on what is known while reading: shapes, sizes, axes, and views of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, TypeAlias

import numpy as np

from convdsl.interop.element_types import FROM_ONNX, INTEGERS
from convdsl.interop.reading.tensors import Array, Known, ReadError, known
from convdsl.tensor import Dim, SymDim, dim_max, dim_min

LARGEST = 1 << 16
"""Elements of a result that is computed while reading; larger ones are left to weight time."""

Attributes: TypeAlias = Mapping[str, Any]
Fold: TypeAlias = Callable[[Sequence[Array], Attributes], Array]


def fold(kind: str, inputs: Sequence[Known], attributes: Attributes) -> Known | None:
    """The result, or None where it has to be left to the graph."""
    if kind in VIEWS:
        return Known(VIEWS[kind]([x.array for x in inputs], attributes), inputs[0].name)
    if kind not in FOLDS or any(x.array.size > LARGEST for x in inputs):
        return None
    with np.errstate(all="ignore"):
        return known(FOLDS[kind]([x.array for x in inputs], attributes))


def checked_shape(sizes: Sequence[Dim]) -> tuple[int, ...]:
    """A shape small enough to be made."""
    total = 1
    shape: list[int] = []
    for size in sizes:
        if not isinstance(size, int | np.integer) or size < 0:
            raise ReadError(f"{size} is no size that a constant can have")
        total *= int(size)
        shape.append(int(size))
    if total > LARGEST * 16:
        raise ReadError(f"a constant of shape {shape} is too large")
    return tuple(shape)


def integers(array: Array) -> list[Any]:
    """Elements as integers, free sizes as they are."""
    return [v if isinstance(v, SymDim) else int(v) for v in array.reshape(-1)]


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
    a, b = inputs
    if a.dtype.kind == "f":
        return np.divide(a, b)
    if a.dtype == object or b.dtype == object:
        return np.floor_divide(a, b)
    if not np.all(b):
        raise ReadError("division of sizes by zero")
    return np.trunc(np.divide(a, b)).astype(np.int64)


def _cast(inputs: Sequence[Array], attributes: Attributes) -> Array:
    if inputs[0].dtype == object:
        return inputs[0]
    dtype = FROM_ONNX.get(attributes["to"])
    if dtype is None:  # integers of other widths are held in 64 bits
        if attributes["to"] in INTEGERS:
            return inputs[0].astype(np.int64)
        raise ReadError(f"elements of ONNX's type {attributes['to']} are not supported")
    return inputs[0].astype(dtype.numpy)


def _scatter_shape(inputs: Sequence[Array], attributes: Attributes) -> Array:
    value = attributes.get("value")
    fill = value.array if isinstance(value, Known) else np.zeros(1, np.float32)
    return np.full(checked_shape(integers(inputs[0])), fill.reshape(-1)[0], fill.dtype)


def _range(inputs: Sequence[Array], _: Attributes) -> Array:
    start, stop, step = (x.reshape(-1)[0] for x in inputs)
    if not step or (stop - start) / step > LARGEST:
        raise ReadError("a range without end")
    return np.arange(start, stop, step, dtype=inputs[0].dtype)


def _expand(inputs: Sequence[Array], _: Attributes) -> Array:
    shape = np.broadcast_shapes(inputs[0].shape, checked_shape(integers(inputs[1])))
    return np.broadcast_to(inputs[0], checked_shape(shape))


def _tile(inputs: Sequence[Array], _: Attributes) -> Array:
    repeats = integers(inputs[1])
    checked_shape([r * size for r, size in zip(repeats, inputs[0].shape, strict=True)])
    return np.tile(inputs[0], repeats)


def _extreme(symbolic: Callable[..., Dim], plain: Any) -> Fold:
    def apply(inputs: Sequence[Array], _: Attributes) -> Array:
        if all(x.dtype != object for x in inputs):
            return reduce(plain, inputs)
        return np.asarray(np.frompyfunc(symbolic, len(inputs), 1)(*inputs))

    return apply


def _product(inputs: Sequence[Array], attributes: Attributes) -> Array:
    axes = tuple(_axes(inputs, attributes)) or None
    return np.asarray(np.prod(inputs[0], axis=axes, keepdims=bool(attributes.get("keepdims", 1))))


def _binary(function: Any) -> Fold:
    return lambda inputs, _: np.asarray(function(inputs[0], inputs[1]))


def _unary(function: Any) -> Fold:
    return lambda inputs, _: np.asarray(function(inputs[0]))


FOLDS: Mapping[str, Fold] = {
    "Add": _binary(np.add),
    "Sub": _binary(np.subtract),
    "Mul": _binary(np.multiply),
    "Div": _divide,
    "Mod": _binary(np.mod),
    "Equal": _binary(np.equal),
    "Less": _binary(np.less),
    "Greater": _binary(np.greater),
    "And": _binary(np.logical_and),
    "Or": _binary(np.logical_or),
    "Not": _unary(np.logical_not),
    "Neg": _unary(np.negative),
    "Abs": _unary(np.abs),
    "Floor": _unary(np.floor),
    "Ceil": _unary(np.ceil),
    "Sqrt": _unary(np.sqrt),
    "Min": _extreme(dim_min, np.minimum),
    "Max": _extreme(dim_max, np.maximum),
    "Cast": _cast,
    "Concat": lambda inputs, a: np.concatenate(list(inputs), a.get("axis", 1)),
    "ConstantOfShape": _scatter_shape,
    "Expand": _expand,
    "Gather": lambda inputs, a: np.take(inputs[0], inputs[1].astype(np.int64), a.get("axis", 0)),
    "Range": _range,
    "ReduceProd": _product,
    "Slice": _slice,
    "Tile": _tile,
    "Where": lambda inputs, _: np.where(inputs[0].astype(bool), inputs[1], inputs[2]),
}

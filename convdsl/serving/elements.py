"""The elements of tensors, as JSON and as bytes."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from convdsl.serving.limits import Refusal, quoted
from convdsl.tensor import DType, Kind
from convdsl.tensor.conversion import convert, widen_bf16

Array: TypeAlias = "npt.NDArray[Any]"

WORDS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
"""What stands for the numbers that JSON has none of."""

_ALLOWED: Mapping[Kind, tuple[frozenset[type], str]] = {
    Kind.FLOAT: (frozenset((int, float)), "a number"),
    Kind.SIGNED: (frozenset((int,)), "a whole number"),
    Kind.UNSIGNED: (frozenset((int,)), "a whole number"),
    Kind.BOOL: (frozenset((bool,)), "true or false"),
}

_LENGTH = struct.Struct("<I")


def from_json(data: list[Any], shape: tuple[int, ...], dtype: DType, what: str) -> Array:
    """Elements of a list, flat or nested as the shape is. Raises Refusal."""
    elements = _flat(data, shape, what)
    kinds = set(map(type, elements))
    if dtype.is_float and str in kinds:
        elements = [_number(element, what) for element in elements]
        kinds = {float}
    allowed, wanted = _ALLOWED[dtype.kind]
    if kinds - allowed:
        place = next(n for n, element in enumerate(elements) if type(element) not in allowed)
        found = quoted(repr(elements[place]))
        raise Refusal(400, f"element {place} of {what} is {found}, not {wanted}")
    try:
        if not dtype.is_float:
            return np.array(elements, dtype.numpy).reshape(shape)
        return convert(np.array(elements, np.float64), DType.F64, dtype).reshape(shape)
    except OverflowError:
        raise Refusal(400, f"a number of {what} is out of the range of {dtype}") from None


def _number(element: Any, what: str) -> Any:
    if not isinstance(element, str):
        return element
    if element not in WORDS:
        said = ", ".join(WORDS)
        raise Refusal(
            400, f"{what} holds the string {quoted(repr(element))}; only {said} are numbers"
        )
    return WORDS[element]


def _flat(data: list[Any], shape: tuple[int, ...], what: str) -> list[Any]:
    """The elements in order; lists in lists must be as long as the shape says."""
    count = math.prod(shape)
    level: list[Any] = data
    if level and isinstance(level[0], list):
        for axis, size in enumerate(shape):
            if axis:
                level = _joined(level, size, axis, what, shape)
            elif len(level) != size:
                said = f"{len(level)} in the data, {size} in the shape {list(shape)}"
                raise Refusal(400, f"{what} has other sizes than it says: {said}")
    if len(level) != count:
        said = f"{len(level)} elements for shape {list(shape)}, which has {count}"
        raise Refusal(400, f"{what} has {said}")
    return level


def _joined(level: list[Any], size: int, axis: int, what: str, shape: tuple[int, ...]) -> list[Any]:
    for row in level:
        if not isinstance(row, list) or len(cast("list[Any]", row)) != size:
            found = f"{len(cast('list[Any]', row))} elements" if isinstance(row, list) else "none"
            said = f"a list on axis {axis} has {found}, {size} in the shape {list(shape)}"
            raise Refusal(400, f"{what} has other sizes than it says: {said}")
    return list(chain.from_iterable(level))


def from_binary(raw: memoryview, shape: tuple[int, ...], dtype: DType, what: str) -> Array:
    """Elements of little-endian bytes. Raises Refusal."""
    needed = math.prod(shape) * dtype.bytes
    if len(raw) != needed:
        said = f"{len(raw)} bytes, but {list(shape)} of {dtype} has {needed}"
        raise Refusal(400, f"{what} has {said}")
    if dtype is DType.BOOL and any(byte > 1 for byte in raw):
        raise Refusal(400, f"{what} has a byte that is neither 0 nor 1")
    # copied, as the bytes may lie at any address
    return (
        np.frombuffer(raw, np.dtype(dtype.numpy).newbyteorder("<"))
        .astype(dtype.numpy)
        .reshape(shape)
    )


def to_json(array: Array, dtype: DType) -> list[Any]:
    """Elements in order, for JSON."""
    if array.dtype == object:
        return array.ravel().tolist()
    if dtype is DType.BF16:
        array = widen_bf16(array)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return [_word(value) for value in cast("list[float]", array.ravel().tolist())]
    return array.ravel().tolist()


def _word(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def to_binary(array: Array) -> bytes:
    """Elements as little-endian bytes; of strings each with its length before it."""
    if array.dtype != object:
        return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    coded = [str(text).encode() for text in array.ravel()]
    return b"".join(_LENGTH.pack(len(text)) + text for text in coded)


def images_of(
    raw: memoryview | None, listed: Sequence[Any], count: int, what: str
) -> tuple[bytes, ...]:
    """Files of images: each with its length before it, or in base64 in JSON. Raises Refusal."""
    found = _split(raw, what) if raw is not None else [_decoded(text, what) for text in listed]
    if len(found) != count:
        raise Refusal(400, f"{what} has {len(found)} images, {count} in its shape")
    return tuple(found)


def _split(raw: memoryview, what: str) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        start = at + _LENGTH.size
        if start > len(raw):
            raise Refusal(400, f"{what} ends within the length of an image")
        at = start + int(_LENGTH.unpack_from(raw, at)[0])
        if at > len(raw):
            raise Refusal(400, f"{what} ends within an image")
        found.append(bytes(raw[start:at]))
    return found


def _decoded(text: Any, what: str) -> bytes:
    if not isinstance(text, str):
        raise Refusal(400, f"{what} holds what is no string: images in JSON are in base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal(400, f"{what} holds a string that is no base64") from None

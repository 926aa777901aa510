"""From DSL values to what an operator's attribute takes, by the attribute's Kind."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import ceil, floor
from typing import Any

from convdsl.elaborate import foreign
from convdsl.elaborate.session import suggest
from convdsl.elaborate.values import ListValue, describe, format_value, is_number
from convdsl.ir.graph import Value
from convdsl.ir.opdef import Attribute, Kind
from convdsl.ir.shapes import given_by
from convdsl.tensor import SymDim, bounds, provably, symbols_of

WANTED = {
    Kind.INT: "an integer",
    Kind.FLOAT: "a number",
    Kind.BOOL: "true or false",
    Kind.STRING: "a word",
    Kind.SIZES: "a size such as 3x3, or an integer for all axes",
    Kind.PADDING: "an integer, a size, or pairs [[before, after], ...]",
    Kind.INTS: "a list of integers, or one",
    Kind.SHAPE: "a list of sizes",
    Kind.ARRAY: "a nested list of numbers",
}


class Unsuitable(Exception):
    """The value does not fit; says why and perhaps what to write."""

    def __init__(self, message: str, help: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.help = help


def convert(attribute: Attribute, value: Any, text: str = "") -> Any:
    """The value, which stands as `text` in the source, as the operator's rules expect it; raises
    Unsuitable."""
    if isinstance(value, str):
        return _word(attribute, value, text)
    made = _CONVERTERS[attribute.kind](value)
    if made is None and attribute.kind is Kind.INTS:
        made = _with_words(attribute, value)
    if made is None and attribute.open and attribute.kind is Kind.PADDING:
        made = _padding(value, _dim)
    if made is None:
        raise Unsuitable(
            f"`{attribute.name}` takes {wanted(attribute)}, not {describe(value)}",
            hexadecimal(text)
            or _rounding(attribute, value)
            or _of_sizes(attribute, value, text)
            or _open(attribute, value),
        )
    if attribute.minimum is not None:
        _check_minimum(attribute, made, attribute.minimum, hexadecimal(text))
    return made


def wanted(attribute: Attribute) -> str:
    """What the attribute takes, in words."""
    words = " or ".join(f"`{word}`" for word in attribute.choices)
    if attribute.kind is Kind.STRING:
        return words or "a word"
    return f"{WANTED[attribute.kind]}{f', or {words}' if words else ''}"


def _word(attribute: Attribute, value: str, text: str) -> str:
    if value in attribute.choices or (attribute.kind is Kind.STRING and not attribute.choices):
        return value
    shown = f'"{value[:40]}"' if text.startswith('"') else f"`{value[:40]}`"
    raise Unsuitable(
        f"`{attribute.name}` takes {wanted(attribute)}, not {shown}",
        word(attribute, value),
    )


def word(attribute: Attribute, value: str) -> tuple[str, ...]:
    """Help for a word that the attribute does not take."""
    return (
        _unquoted(value)
        or _switch(attribute, value)
        or _whole(attribute, value)
        or foreign.value(value, attribute.choices)
        or ("f32" in attribute.choices and foreign.element_type(value))
        or suggest(value, attribute.choices)
    )


_OF_A_MAP = (
    "the mean of a map is avgpool(global); a filter of its size [y.height, y.width], of a tensor"
    " `y`, with pad = 0"
)
_WHOLE = ("global", "all", "whole", "full", "total")


def _whole(attribute: Attribute, value: str) -> tuple[str, ...]:
    """Help for a kernel as large as the map."""
    if attribute.name != "kernel" or value.lower() not in _WHOLE:
        return ()
    if attribute.choices:
        return (f"write `{attribute.choices[0]}`",)
    return (_OF_A_MAP,)


_OFF, _ON = ("none", "null", "no", "off"), ("yes", "on")


def _switch(attribute: Attribute, word: str) -> tuple[str, ...]:
    """Help for a word of elsewhere for true or false."""
    if attribute.kind is not Kind.BOOL or word.lower() not in (*_OFF, *_ON):
        return ()
    return (f"write `{'true' if word.lower() in _ON else 'false'}`",)


_VALUE = re.compile(r"-?\d+(\.\d*)?(e-?\d+)?|\d+(x\d+)+|true|false")


def _unquoted(text: str) -> tuple[str, ...]:
    """Help for what would be a number or a size, were it not a text."""
    plain = text.strip().lower()
    return (f"write it without quotes: {plain}",) if _VALUE.fullmatch(plain) else ()


def hexadecimal(text: str) -> tuple[str, ...]:
    """Help for `0x10`, which reads as a size of no rows."""
    if text.lower().startswith("0x") and text[2:].isdigit() and int(text, 16):
        return (f"numbers are decimal: {int(text, 16)}",)
    return ()


def _rounding(attribute: Attribute, value: Any) -> tuple[str, ...]:
    if attribute.kind is Kind.INT and isinstance(value, float):
        return ("round it: floor(x), ceil(x), round(x), or round_to(x, 8) for channels",)
    others = [word for word in attribute.choices if word != "none"]
    if attribute.kind is Kind.STRING and isinstance(value, bool) and len(others) == 1:
        return (f"write `{others[0] if value else 'none'}`",)
    if attribute.kind is Kind.BOOL and type(value) is int and value in (0, 1):
        return (f"write `{'true' if value else 'false'}`",)
    if attribute.kind is Kind.BOOL and attribute.name == "bias" and isinstance(value, float):
        begun = f"to train it from there on, `bias = initial({value})`"
        return (f"of numbers that stay, a list: [{value}]; {begun}",)
    return ()


def _open(attribute: Attribute, value: Any) -> tuple[str, ...]:
    """Help for a size that is open where a number should stand."""
    size = next(_open_sizes(value), None)
    if size is None or attribute.kind is Kind.SHAPE:
        return ()
    if attribute.name == "kernel" and "global" in attribute.choices:
        return ("of a whole map: write `global`", given_by(size))
    return (given_by(size),)


def _open_sizes(value: Any) -> Iterator[SymDim]:
    """Those in a value, also within lists of lists."""
    for item in value.items if isinstance(value, ListValue) else (value,):
        if isinstance(item, SymDim):
            yield item
        elif isinstance(item, ListValue):
            yield from _open_sizes(item)


def _of_sizes(attribute: Attribute, value: Any, text: str) -> tuple[str, ...]:
    """Help for a tensor where a list of sizes should stand."""
    if attribute.kind is Kind.SHAPE and isinstance(value, Value) and text.isidentifier():
        return (f"its sizes are {text}.shape, those of space {text}.space",)
    if attribute.name == "axis" and isinstance(value, ListValue) and value.items:
        return (f"one axis: the first of them, {-len(value.items)} from the end",)
    return ()


def _check_minimum(attribute: Attribute, value: Any, minimum: int, help: tuple[str, ...]) -> None:
    flat = [value]
    while flat:
        item = flat.pop()
        if isinstance(item, tuple):
            flat.extend(item)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, int | float) and item < minimum:
            raise Unsuitable(
                f"`{attribute.name}` is at least {minimum}, not {format_value(item)}",
                help or _below(attribute, item),
            )
        elif isinstance(item, SymDim) and not provably(">=", item, minimum):
            raise Unsuitable(*_perhaps_below(attribute, item, minimum))


def _perhaps_below(attribute: Attribute, size: SymDim, minimum: int) -> tuple[str, tuple[str, ...]]:
    """Message and help for an open size that is, or may be, below the least."""
    most = bounds(size)[1]
    if most is not None and most < minimum:
        return f"`{attribute.name}` is at least {minimum}, not {size}", ()
    text = f"`{attribute.name}` is at least {minimum}, which {size} may be below"
    condition = _where(size, minimum)
    where = f"say so where the input is declared, `where {condition}`, or " if condition else ""
    return text, (f"{where}write max(..., {minimum}) around it",)


def _where(size: SymDim, minimum: int) -> str:
    """`H <= 64`, where 64 - H is never below the least; nothing of what has more than a multiple of
    one symbol and a number."""
    symbols = symbols_of(size)
    if len(symbols) != 1:
        return ""
    (one,) = symbols
    terms = dict(size.terms)
    factor, least = terms.pop(((one, 1),), 0), terms.pop((), 0)
    if terms:
        return ""
    bound = Fraction(minimum - least) / factor
    return f"{one} >= {ceil(bound)}" if factor > 0 else f"{one} <= {floor(bound)}"


_LEAST = {
    "channels": "is one channel; of a computed width take max(1, ...), or round_to(..., 8)",
    "stride": "steps from pixel to pixel",
    "dilation": "leaves no gaps",
    "groups": "makes one group of all channels",
    "kernel": "is a single pixel",
    "factor": "leaves all as it is",
}
_ENLARGES = "to enlarge: conv_transpose(channels, 2x2, stride = 2), or upsample(2)"


def _below(attribute: Attribute, value: float) -> tuple[str, ...]:
    """Help for a number below the least: what that means, and what does what may be meant."""
    if attribute.kind is Kind.PADDING:
        cut = int(-value)
        return (f"to cut a border off: slice([2, 3], {cut}, {-cut})",)
    if attribute.name == "stride" and value < 0:
        return (_ENLARGES,)
    least = _LEAST.get(attribute.name)
    return (f"1 is the least: it {least}",) if least else ()


def _integer(value: Any) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _dim(value: Any) -> Any:
    return value if isinstance(value, SymDim) else _integer(value)


def _float(value: Any) -> Any:
    return float(value) if is_number(value) else None


def _bool(value: Any) -> Any:
    return value if isinstance(value, bool) else None


def _nothing(value: Any) -> Any:
    return None


def _integers(value: Any, one: Callable[[Any], Any] = _integer) -> Any:
    items = value.items if isinstance(value, ListValue) else value
    if isinstance(items, tuple) and items and all(one(item) is not None for item in items):  # pyright: ignore[reportUnknownVariableType]
        return items  # pyright: ignore[reportUnknownVariableType]
    return None


def _with_words(attribute: Attribute, value: Any) -> Any:
    """A list of numbers and of the attribute's own words, `start = [1, begin]`, and of sizes that
    are open where it takes them."""
    if attribute.open and isinstance(value, SymDim):
        return value
    items = value.items if isinstance(value, ListValue) else None
    one = _dim if attribute.open else _integer
    if not items or not all(i in attribute.choices or one(i) is not None for i in items):
        return None
    return tuple(items)


def _sizes(value: Any) -> Any:
    return value if _integer(value) is not None else _integers(value)


def _padding(value: Any, one: Callable[[Any], Any] = _integer) -> Any:
    """Amounts, each of them as `one` takes it."""
    if one(value) is not None:
        return value
    if (listed := _integers(value, one)) is not None:
        return listed
    if not isinstance(value, ListValue):
        return None
    pairs = [item if one(item) is not None else _integers(item, one) for item in value.items]
    fits = all(p is not None and (not isinstance(p, tuple) or len(p) == 2) for p in pairs)  # pyright: ignore[reportUnknownArgumentType]
    return tuple(pairs) if pairs and fits else None


def _shape(value: Any) -> Any:
    items = value.items if isinstance(value, ListValue) else value
    if isinstance(items, tuple) and all(_dim(item) is not None for item in items):  # pyright: ignore[reportUnknownVariableType]
        return items  # pyright: ignore[reportUnknownVariableType]
    return None


def _array(value: Any) -> Any:
    """Nested lists as nested tuples of floats, all rows of equal shape."""
    return _rows(value, lambda item: float(item) if is_number(item) else None)


def _rows(value: Any, element: Callable[[Any], Any]) -> Any:
    if not isinstance(value, ListValue):
        return element(value)
    rows = [_rows(item, element) for item in value.items]
    if not rows or any(row is None for row in rows) or len({_extents(row) for row in rows}) != 1:
        return None
    return tuple(rows)


def _extents(rows: Any) -> tuple[int, ...]:
    return (len(rows), *_extents(rows[0])) if isinstance(rows, tuple) else ()  # pyright: ignore[reportUnknownArgumentType]


def array(value: Any) -> Any:
    """A nested list of numbers or booleans as nested tuples, or None: whole numbers stay so, of
    which a float would not hold all."""
    return _rows(value, lambda item: item if isinstance(item, int | float) else None)


_CONVERTERS = {
    Kind.INT: _integer,
    Kind.FLOAT: _float,
    Kind.BOOL: _bool,
    Kind.STRING: _nothing,
    Kind.SIZES: _sizes,
    Kind.PADDING: _padding,
    Kind.INTS: _sizes,
    Kind.SHAPE: _shape,
    Kind.ARRAY: _array,
}

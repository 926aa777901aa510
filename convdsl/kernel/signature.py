"""The sizes that a network's inputs leave open, and what arrays say of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np

from convdsl.diagnostics import Error, InputError, expect
from convdsl.kernel.program import Port
from convdsl.tensor import Dim, Symbol, SymDim, TensorType, evaluate, symbols_of

Array: TypeAlias = "np.ndarray[Any, Any]"
Binding: TypeAlias = "dict[str, int]"
"""Sizes by the names of their symbols."""

_BATCH = re.compile(r"n|b|bs|n_?batch|(\w+_)?batch(_?(size|dim))?", re.IGNORECASE)


def input_symbols(inputs: Sequence[Port]) -> dict[str, Symbol]:
    """Free symbols of the input shapes, by name, in order of appearance."""
    found: dict[str, Symbol] = {}
    for port in inputs:
        for extent in port.type.shape:
            for symbol in sorted(symbols_of(extent), key=str):
                found.setdefault(symbol.name, symbol)
    return found


def _help(type: TensorType, shape: Sequence[int]) -> str:
    """What makes an array of this shape one of the type, where that is plain: an axis for the
    batch, channels that come last."""
    wanted = type.shape
    if len(shape) == type.rank - 1 and _is_like(wanted[1:], shape):
        return "\nhelp: an axis for the batch comes first: x[None]"
    if len(shape) == type.rank > 2:
        order = (0, type.rank - 1, *range(1, type.rank - 1))
        if _is_like(wanted, [shape[axis] for axis in order]):
            return f"\nhelp: channels come second: x.transpose{order}"
    return ""


def _is_like(wanted: Sequence[Dim], shape: Sequence[int]) -> bool:
    return all(size == given for size, given in zip(wanted, shape, strict=True)
               if isinstance(size, int))  # fmt: skip


def batch_symbol(names: Iterable[str]) -> str | None:
    """The size that counts samples: N, else the first of those that exporters call a batch."""
    known = [name for name in names if _BATCH.fullmatch(name)]
    return "N" if "N" in known else next(iter(known), None)


def samples_of(binding: Mapping[str, int]) -> int | None:
    """How many samples sizes say, or None where they do not."""
    name = batch_symbol(binding)
    return None if name is None else binding[name]


def one_sample(binding: Binding, symbols: Iterable[str]) -> None:
    """A batch that is open, and of which nothing was said, has one sample."""
    name = batch_symbol(symbols)
    if name is not None:
        binding.setdefault(name, 1)


def bind_shapes(inputs: Sequence[Port], shapes: Mapping[str, Sequence[int]]) -> Binding:
    """Solve the input shapes for their symbols; every extent must then agree."""
    binding: Binding = {}
    expect("the shapes", shapes, Mapping)
    for port in inputs:
        if port.name not in shapes:
            raise InputError(f"no shape is given for the input `{port.name}`")
        shape = shapes[port.name]
        expect(f"the shape of `{port.name}`", shape, tuple, list)
        if len(shape) != port.type.rank:
            text = f"input `{port.name}` has shape {list(shape)}, expected {port.type}"
            raise InputError(text + _help(port.type, shape))
        for extent, given in zip(port.type.shape, shape, strict=True):
            name = _plain_symbol(extent)
            if name is not None:
                binding.setdefault(name, whole(name, given))
    symbols = input_symbols(inputs)
    if len(binding) < len(symbols):
        _solve(inputs, shapes, binding)
    missing = [name for name in symbols if name not in binding]
    if missing:
        raise InputError(f"the input shapes do not determine {', '.join(missing)}")
    for name, symbol in symbols.items():
        check_symbol(symbol, binding[name])
    for port in inputs:
        expected = [int(evaluate(extent, binding)) for extent in port.type.shape]
        if expected != list(shapes[port.name]):
            raise InputError(
                f"input `{port.name}` has shape {list(shapes[port.name])}, expected {port.type}"
                + (f" = {expected}" if binding else "")
                + _help(port.type, shapes[port.name])
            )
    return binding


def _solve(inputs: Sequence[Port], shapes: Mapping[str, Sequence[int]], binding: Binding) -> None:
    """Bind symbols that are in extents such as 4*T + 1 alone, where that comes to a whole size."""
    for port in inputs:
        for extent, given in zip(port.type.shape, shapes[port.name], strict=True):
            symbols = symbols_of(extent)
            if not isinstance(extent, SymDim) or len(symbols) != 1:
                continue
            (one,) = symbols
            terms = dict(extent.terms)
            factor, rest = terms.pop(((one, 1),), 0), terms.pop((), 0)
            if one.name in binding or terms or not factor:
                continue
            size = Fraction(whole(one.name, given) - rest) / factor
            if size.denominator != 1 or size < 1:
                text = f"input `{port.name}` has shape {list(shapes[port.name])}"
                raise InputError(f"{text}: no {one.name} makes {extent} be {given}")
            binding[one.name] = int(size)


def array_of(what: str, given: object, error: type[Error] = InputError) -> Array:
    """What NumPy makes an array of; the error, which says what it was, where it makes none:
    lists of uneven lengths, objects whose own conversion fails."""
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError, OverflowError) as reason:
        raise error(f"{what} is not an array: {reason}") from None


def whole(name: str, given: object) -> int:
    """A size that somebody gives. InputError where it is no whole number."""
    if isinstance(given, bool) or not isinstance(given, Integral):
        raise InputError(f"{name} = {given!r} is no size: whole numbers are")
    return int(given)


def _plain_symbol(extent: int | SymDim) -> str | None:
    symbols = symbols_of(extent)
    if isinstance(extent, SymDim) and len(symbols) == 1 and str(extent) == next(iter(symbols)).name:
        return str(extent)
    return None


def _near(symbol: Symbol, value: int) -> str:
    """The sizes below and above that would do."""
    below = value - (value - symbol.remainder) % symbol.divisor
    fitting = [
        size
        for size in (below, below + symbol.divisor)
        if size >= symbol.minimum and (symbol.maximum is None or size <= symbol.maximum)
    ]
    return f": {' or '.join(map(str, fitting))} would do" if fitting else ""


def check_symbol(symbol: Symbol, value: int) -> None:
    """InputError where a value is no size, or breaks what was declared of its symbol."""
    value = whole(symbol.name, value)
    if value < symbol.minimum or (symbol.maximum is not None and value > symbol.maximum):
        least = f"at least {symbol.minimum}"
        most = "" if symbol.maximum is None else f" and at most {symbol.maximum}"
        raise InputError(f"{symbol.name} = {value}, but it must be {least}{most}")
    if value % symbol.divisor != symbol.remainder % symbol.divisor:
        rest = symbol.remainder % symbol.divisor
        raise InputError(
            f"{symbol.name} = {value}, but {symbol.name} % {symbol.divisor} == {rest}"
            f"{_near(symbol, value)}"
        )

"""Parameters that are set from outside, by `--set` or `convdsl.load(..., width = 2)`: whether they
are of the kind that their defaults are, and whether they are to blame for what is found wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from convdsl.diagnostics import CompileError
from convdsl.elaborate.expressions import WORDS
from convdsl.elaborate.session import suggest
from convdsl.elaborate.values import (
    LAYER_LIKE,
    SPELLED,
    ListValue,
    describe,
    format_value,
    is_number,
)
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model

TRIED = 8
"""Parameters that are left out one by one, at most, to find one that is to blame."""

_HOW = "from outside (`--set`, or `load`)"


def objection(name: str, given: Any, default: Any, known: Iterable[str]) -> tuple[str, Any] | None:
    """Why a value cannot stand where a default stands: a message and help. None where it may."""
    wanted = _kind(default)
    if wanted is None or _may_stand(given, default):
        return None
    shown = format_value(default)
    text = f"`{name}` is {wanted}, by default {shown}; {_HOW} it got {describe(given)}"
    if isinstance(default, bool):
        help: tuple[str, ...] = (f"write `--set {name}=true` or `--set {name}=false`",)
    elif isinstance(default, LAYER_LIKE) and isinstance(given, str):
        help = suggest(given, {*known, *SPELLED})
        if "(" in given or "->" in given:
            help = (f"names alone come from outside: give it one, block one {{ {given[:40]} }}",)
    else:
        help = (f"write e.g. `--set {name}={shown}`",)
    return text, help


def _kind(default: Any) -> str | None:
    """What a default is, in words; None of what says too little."""
    match default:
        case bool():
            return "true or false"
        case int():
            return "an integer"
        case float():
            return "a number"
        case tuple():
            return "a size"
        case ListValue():
            return "a list"
        case _:
            return "a layer" if isinstance(default, LAYER_LIKE) else None


def _may_stand(given: Any, default: Any) -> bool:
    """Numbers stand for numbers, sizes and lists of them for each other, words for what words may
    stand for; the rest for its own kind."""
    if isinstance(default, bool) or isinstance(given, bool):
        return isinstance(default, bool) == isinstance(given, bool) or isinstance(default, str)
    if isinstance(given, str):
        return given in WORDS and not isinstance(default, (ListValue, *LAYER_LIKE))
    if isinstance(default, LAYER_LIKE):
        return isinstance(given, LAYER_LIKE)
    return is_number(given) or isinstance(given, tuple | ListValue)


def blamed(
    error: CompileError, given: Mapping[str, Any], attempt: Callable[[Mapping[str, Any]], Model]
) -> CompileError:
    """The error, or where the model is sound without some of what is given, its first finding alone
    and what was given to whom."""
    first = error.diagnostics[0]
    if not given or first.code.startswith(("E01", "E06", "E07")):
        return error
    guilty = _guilty(given, attempt)
    notes = (
        f"{_HOW}, `{name}` is {format_value(given[name])}; by default it is {default}"
        for name, default in guilty.items()
    )
    return CompileError([replace(first, notes=(*first.notes, *notes))]) if guilty else error


def _guilty(
    given: Mapping[str, Any], attempt: Callable[[Mapping[str, Any]], Model]
) -> dict[str, str]:
    """A parameter without which the model is sound, else all where it is without all; with the
    defaults that hold then."""
    ways = [[name] for name in given] if len(given) <= TRIED else []
    if len(given) != 1:
        ways.append(list(given))
    for left_out in ways:
        kept = {name: value for name, value in given.items() if name not in left_out}
        try:
            usual = attempt(kept).parameters
        except CompileError:
            continue
        return {n: format_value(from_python(usual.get(n, "open"))) for n in left_out}
    return {}


def from_python(value: Any) -> Any:
    """A parameter given from outside as a value of the language; of NumPy, what it holds."""
    if hasattr(value, "tolist"):
        return from_python(value.tolist())
    if isinstance(value, list):
        return ListValue.of(tuple(from_python(item) for item in value))  # pyright: ignore[reportUnknownVariableType]
    return value


def to_python(value: Any) -> Any:
    """A parameter's value in Python's own types; layers by their names."""
    if isinstance(value, ListValue):
        return [to_python(item) for item in value.items]
    if isinstance(value, bool | int | float | str | tuple):
        return value  # pyright: ignore[reportUnknownVariableType]
    return format_value(value)


def of_no_parameter(graph: Graph, model: str, name: str, known: Sequence[str]) -> tuple[str, ...]:
    """Help for what is set from outside and is neither a parameter of the model nor an open size of
    its inputs."""
    if name.startswith("train."):
        return ("settings of training are set where it trains: `convdsl train`, `eval`",)
    from convdsl.kernel.signature import batch_symbol  # texts alone do without NumPy

    sizes = [s.name for value in graph.inputs.values() for s in value.type.symbols()]
    batch = batch_symbol(dict.fromkeys(sizes))
    if batch is not None and batch_symbol([name]) is not None:
        return (f"the batch is called {batch} here: --batch, or --set {batch}=...",)
    open = [size for size in dict.fromkeys(sizes) if size != batch]
    near = suggest(name, [*known, *open])
    listed = (f"it has {', '.join(known)}",) if known else ()
    if near or listed:
        return near or listed
    sizes = f"; its open sizes are {', '.join(open)}" if open else ""
    return (f"it has none; `model {model}({name} = ...) {{` declares one{sizes}",)

"""Arguments that a public function does not take are answered with those it does."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from convdsl.diagnostics import CompileError, Diagnostic
from convdsl.spelling import nearest

P = ParamSpec("P")
R = TypeVar("R")

ELSEWHERE: Mapping[str, str] = {
    "batch_size": "batch",
    "input_shape": "inputs",
    "input_size": "inputs",
    "shape": "inputs",
    "size": "inputs",
    "state_dict": "weights",
    "checkpoint": "weights",
    "params": "weights",
    "num_threads": "threads",
    "n_threads": "threads",
    "num_workers": "workers",
    "learning_rate": "lr",
    "file": "path",
    "filename": "path",
    "output": "path",
    "k": "top",
    "topk": "top",
}
"""What arguments are called elsewhere."""

COMPILES = ("weights", "inputs", "batch", "device", "target", "threads", "cpu", "precision")
"""What is said to `compile`, not to `load`."""

_OF_NAMES = ("E0605", "E0903")
"""What an unknown parameter, and an unknown setting of training, is answered with."""


def suggests(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose TypeError for an argument that it does not take says which was
    likely meant, or all that there are. Where it hands unknown names on to a model as its
    parameters, and the model has none of such a name, its own argument of nearly that name is the
    help."""
    code: Any = getattr(function, "__code__")  # noqa: B009  of a function; ParamSpec hides it
    count = code.co_argcount + code.co_kwonlyargcount
    names = [name for name in code.co_varnames[:count] if name != "self"]
    known = frozenset(names)
    called_as = function.__qualname__.removesuffix(".__init__")
    hands_on = bool(code.co_flags & inspect.CO_VARKEYWORDS)

    @functools.wraps(function)
    def called(*args: P.args, **given: P.kwargs) -> R:
        odd = given.keys() - known
        if not odd:
            return function(*args, **given)
        if not hands_on:
            name = next(name for name in given if name in odd)
            raise TypeError(f"{called_as}() has no argument `{name}`{_help(name)}")
        try:
            return function(*args, **given)
        except CompileError as error:
            raise CompileError([_with_help(d, odd) for d in error.diagnostics]) from None

    def near(name: str) -> str | None:
        elsewhere = ELSEWHERE.get(name)
        return elsewhere if elsewhere in known else nearest(name, names)

    def _help(name: str) -> str:
        if (meant := near(name)) is not None:
            return f"; did you mean {meant}?"
        if "symbols" in known and name.isupper():
            return f"; a size of the inputs is symbols={{'{name}': ...}}"
        said = f"; it takes {', '.join(names)}"
        loads = function.__name__ != "load" and "model" in known
        text = f"\nhelp: a parameter of the model is given to convdsl.load(..., {name}=...)"
        return said + text if loads else said

    def _with_help(found: Diagnostic, odd: set[str]) -> Diagnostic:
        name = next((n for n in odd if found.code in _OF_NAMES and f"`{n}`" in found.message), "")
        meant = near(name)
        if function.__name__ == "load" and name in COMPILES:
            said = f"what code is made of and for is compile's: convdsl.compile(..., {name}=...)"
        elif meant is not None:
            said = f"or is {meant} meant, which {called_as}() takes?"
        else:
            return found
        return replace(found, help=(*found.help, said))

    return called

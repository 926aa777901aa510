"""Whether text and weights that import wrote are the network of the file, in names and numbers.

That the graph is the same, `exporting.translate` has seen to before it returns anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

from convdsl.diagnostics import InputError
from convdsl.driver import compile
from convdsl.ir.model import Model
from convdsl.kernel.signature import Binding, one_sample
from convdsl.tensor import evaluate

Array: TypeAlias = "np.ndarray[Any, Any]"

SIZES = (64, 224, 16, 7, 1)
"""Tried in turn for sizes that are open: the first that fits the network."""
AGREE = 1e-4
"""How far two results may be apart, of the largest magnitude: the same arithmetic, perhaps in
another order of nodes."""
_TOLD = 4  # names of a kind that are told one by one


def renamed(model: Model) -> tuple[str, ...]:
    """A note for every kind of names that the text had to change."""
    writer = import_module("convdsl.interop.cnn_source")
    said: Model = writer.said(model)
    flat: dict[str, str] = import_module("convdsl.interop.cnn_model").flat_keys(model.graph)
    keys = [key for key in model.weights or {} if key in flat]
    pairs = {
        "model": [(model.name, said.name)],
        "input": list(zip(model.inputs, said.inputs, strict=True)),
        "output": list(zip(model.outputs, said.outputs, strict=True)),
        "weight": [] if set(keys) & said.graph.states.keys() else [(k, flat[k]) for k in keys],
    }
    return tuple(
        _note(kind, changed)
        for kind, names in pairs.items()
        if (changed := [(old, new) for old, new in names if old != new])
    )


def _note(kind: str, changed: list[tuple[str, str]]) -> str:
    """`input 0 is called t0; input if is called if_2`."""
    told = [f"{kind} {old} is called {new}" for old, new in changed[:_TOLD]]
    more = len(changed) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more else "")


def compare_numbers(model: Model, again: Model, weights: bytes) -> str | None:
    """What the file computes and what its text, read again, computes of drawn inputs: a note of how
    far they are apart; None where nothing can be run (weights that are not there, inputs that
    decide shapes, or no sizes that fit). InputError where they differ."""
    arrays: dict[str, Array] = import_module("safetensors.numpy").load(weights)
    needed = [key for key, state in again.graph.states.items() if state.data is None]
    if model.deciding or any(key not in arrays for key in needed):
        return None
    first, second = compile(model), compile(again, arrays)
    for size in SIZES:
        drawn = _drawn(model, size)
        try:
            expected = first.by_name(**drawn)
            break
        except InputError:  # too small, or of no size that divides
            continue
    else:
        return None
    names = dict(zip(model.inputs, again.inputs, strict=True))
    found = second.by_name(**{names[name]: array for name, array in drawn.items()})
    worst = 0.0
    pairs = zip(expected.items(), found.values(), strict=True)
    for (name, wanted), got in pairs:
        apart = _apart(wanted, got)
        if apart > AGREE:
            raise InputError(
                f"{model.name} cannot be said in .cnn text: its output {name} would be another one,"
                f" {apart:.1e} of its range away"
            )
        worst = max(worst, apart)
    return f"the text computes what the file does: outputs of drawn inputs differ by {worst:.1g}"


def _drawn(model: Model, size: int) -> Mapping[str, Array]:
    """Normal numbers for real inputs, zeros and ones for others: positions that every axis has."""
    rng = np.random.default_rng(0)
    names = [symbol.name for symbol in model.symbols]
    symbols: Binding = {}
    one_sample(symbols, names)
    symbols = {name: symbols.get(name, size) for name in names}
    drawn: dict[str, Array] = {}
    for name, type in model.inputs.items():
        shape = [int(evaluate(extent, symbols)) for extent in type.shape]
        real = type.dtype.is_float
        array = rng.standard_normal(shape) if real else rng.integers(0, 2, shape)
        drawn[name] = np.asarray(array).astype(type.dtype.numpy)
    return drawn


def _apart(wanted: Array, got: Array) -> float:
    """The largest difference, of the largest magnitude; infinite where infinities differ."""
    if wanted.shape != got.shape or wanted.dtype != got.dtype:
        return np.inf
    a, b = wanted.astype("f8"), got.astype("f8")
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not (same | finite).all():
        return np.inf
    a, b = a[finite], b[finite]
    scale = max(float(np.abs(a).max(initial=0.0)), 1e-30)
    return float(np.abs(a - b).max(initial=0.0)) / scale

"""The settings of a run: what a `train` block says, what is said over it, and the defaults.

optimizer.lr, optimizer.<argument>, schedule.<argument>      one argument of the technique
lr                                                           short for optimizer.lr
everything else                                              as in a `train` block
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from convdsl.diagnostics import InputError
from convdsl.elaborate.outside import from_python
from convdsl.elaborate.settings import training_settings
from convdsl.elaborate.values import format_value
from convdsl.ir.model import Model
from convdsl.ir.techniques import LOSSES, ONE_OF, SETTINGS, SOME_OF, Table
from convdsl.ir.training import Choice, Loss, Training
from convdsl.training.losses import LOSSES as BUILDERS

USUAL = Training(optimizer=Choice("adamw"), schedule=Choice("cosine"))
"""The techniques of a run about which nothing is said. The loss is cross-entropy of the only
output, and the metric of a loss over classes is accuracy."""

_SHORT = {"lr": "optimizer.lr"}
_OF_CLASSES = ("cross_entropy", "nll")


def complete(model: Model, said: Mapping[str, Any] | None = None) -> Training:
    """All settings of a run of a model, with all arguments: defaults, over them its `train` block,
    over that what is `said` by name, as text of the language or as Python values.

    Raises CompileError for what cannot be, InputError for a loss that nothing says.
    """
    given = {_SHORT.get(name, name): text for name, text in texts(said or {}).items()}
    for name, text in given.items():
        _expect_one(name, text)
    whole = {name: text for name, text in given.items() if "." not in name}
    found = _over(USUAL, model.training)
    found = _over(found, training_settings(whole) if whole else None)
    for name in ONE_OF:
        inner = {n.partition(".")[2]: t for n, t in given.items() if n.startswith(f"{name}.")}
        if inner:
            found = replace(found, **{name: _with(name, getattr(found, name), inner)})
    for name, text in given.items():
        if "." in name and name.partition(".")[0] not in ONE_OF:
            training_settings({name.partition(".")[0]: text})  # unknown names are told so
            raise InputError(f"train.{name}: only {' and '.join(ONE_OF)} have arguments")
    return _filled(model, found)


def _expect_one(name: str, text: str) -> None:
    """InputError of a setting that is given several values."""
    inside = text
    while (shorter := _IN_BRACKETS.sub("", inside)) != inside:
        inside = shorter
    if "," in inside:
        raise InputError(
            f"train.{name} takes one value, not {text}\n"
            f"help: a list stands in brackets: [{text}]; several runs are several commands"
        )


_IN_BRACKETS = re.compile(r"\([^()\[\]]*\)|\[[^()\[\]]*\]|\"[^\"]*\"")


def gone_on(kept: Mapping[str, str], said: Mapping[str, Any] | None) -> dict[str, str]:
    """What holds of a run that goes on: what was said when it was begun, and over it what is said
    now; of a technique that is chosen anew nothing of before."""
    now = {_SHORT.get(name, name): text for name, text in texts(said or {}).items()}
    return {n: text for n, text in kept.items() if n.partition(".")[0] not in now} | now


def texts(said: Mapping[str, Any]) -> dict[str, str]:
    """Settings as texts of the language."""
    return {
        name: value if isinstance(value, str) else format_value(from_python(value))
        for name, value in said.items()
    }


def _over(below: Training, above: Training | None) -> Training:
    """What is said above, and where it says nothing what is below."""
    if above is None:
        return below
    said = {f.name: getattr(above, f.name) for f in fields(Training)}
    given = {name: value for name, value in said.items() if value is not None and value != ()}
    return replace(below, **given)


def _with(setting: str, choice: Choice, arguments: Mapping[str, str]) -> Choice:
    """A technique with some arguments said otherwise, checked as its own."""
    text = ", ".join(f"{name} = {value}" for name, value in arguments.items())
    read: Choice = getattr(training_settings({setting: f"{choice.name}({text})"}), setting)
    return replace(choice, arguments={**choice.arguments, **read.arguments})


def _filled(model: Model, said: Training) -> Training:
    """Every setting, and every argument of every technique."""
    loss = said.loss or (_usual_loss(model),)
    metrics = said.metrics
    if not metrics and any(term.measure.name in _OF_CLASSES for term in loss):
        metrics = (Choice("accuracy"),)
    plain = {name: said.setting(name) for name in SETTINGS}
    one = {name: _complete(table, getattr(said, name)) for name, table in ONE_OF.items()}
    some = {
        name: tuple(_complete(table, c) for c in getattr(said, name))
        for name, table in SOME_OF.items()
        if name != "metrics"
    }
    return replace(
        said,
        **plain,
        **one,
        **some,
        metrics=tuple(_complete(SOME_OF["metrics"], choice) for choice in metrics),
        loss=tuple(replace(term, measure=_complete(LOSSES, term.measure)) for term in loss),
    )


def _complete(table: Table, choice: Choice) -> Choice:
    return replace(choice, arguments=table[choice.name].complete(choice.arguments))


def _usual_loss(model: Model) -> Loss:
    """Cross-entropy, where there is one output to compare and its second axis holds classes."""
    outputs = model.outputs
    name, type = next(iter(outputs.items()))
    if len(outputs) > 1 or type.rank < 2 or not type.dtype.is_float:
        raise InputError(
            f"{model.name} does not say what it is trained for: write `train {{ loss = ... }}`,"
            f" or --set 'train.loss=mse({name}, target)'; losses are {', '.join(LOSSES)}"
        )
    return Loss(Choice("cross_entropy"), (name, BUILDERS["cross_entropy"].usual))

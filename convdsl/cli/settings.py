"""Training settings on the command line: `--set train.NAME=VALUE`, and the short forms of some."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from convdsl.cli import console
from convdsl.cli.options import positive
from convdsl.diagnostics import CompileError

if TYPE_CHECKING:
    from convdsl.ir.model import Model
    from convdsl.ir.training import Training

_TRAIN = "train."
_SHORT = ("epochs", "batch", "lr", "optimizer", "seed", "val_fraction", "freeze")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The short forms; each is the same as `--set train.NAME=VALUE`, and stands over the file."""
    group = parser.add_argument_group("settings (short for --set train.NAME=VALUE)")
    group.add_argument("--epochs", type=positive, metavar="E", help="times through the data")
    group.add_argument("--batch", type=positive, metavar="N", help="samples a step")
    group.add_argument(
        "--lr", type=_number, metavar="RATE", help="the optimiser's rate of learning"
    )
    group.add_argument("--optimizer", metavar="NAME", help="e.g. adamw, 'sgd(momentum = 0.9)'")
    group.add_argument(
        "--seed", type=_number, metavar="S", help="of first weights, order, augmentation, dropout"
    )
    group.add_argument(
        "--val-fraction",
        type=_number,
        metavar="F",
        help="share of the data kept for validation (default 0.1)",
    )
    group.add_argument(
        "--freeze",
        action="append",
        metavar="PATTERN",
        help="weights that stay as they are, e.g. 'layer1.*'; may be repeated",
    )


def _number(text: str) -> str:
    """A number as the language has it, 1e-3 or 1/1000: words are none."""
    if text.isalpha() and text.lower() not in ("inf", "nan"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return text


def taken_out(options: argparse.Namespace) -> dict[str, str]:
    """Take `train.*` out of `--set`: texts by setting."""
    said = {n[len(_TRAIN) :]: text for n, text in options.set if n.startswith(_TRAIN)}
    options.set = [(n, text) for n, text in options.set if not n.startswith(_TRAIN)]
    return said


def split_settings(options: argparse.Namespace) -> dict[str, str]:
    """Take `train.*` out of `--set`, and the short forms with it: texts by setting."""
    said = taken_out(options)
    for name in _SHORT:
        value = getattr(options, name, None)
        if isinstance(value, list):
            quoted = (f'"{pattern}"' for pattern in value)  # pyright: ignore[reportUnknownVariableType]
            value = f"[{', '.join(quoted)}]"
        if value is not None:
            said[name] = str(value)
    return said


def model_and_settings(options: argparse.Namespace) -> tuple[Model, Training, dict[str, str]]:
    """The model named on the command line, the complete settings of its training, and what the
    command line says of them."""
    from convdsl.training.settings import complete

    said = split_settings(options)
    model = model_to_train(options)
    return model, complete(model, said), said


def model_to_train(options: argparse.Namespace) -> Model:
    """The model named on the command line; a setting that was taken for its parameter is said."""
    from convdsl.cli.building import load_model
    from convdsl.ir.techniques import ONE_OF, SETTINGS, SOME_OF

    try:
        return load_model(options)
    except CompileError:
        for name, text in options.set:
            before, _, setting = name.rpartition(".")
            if setting in (*SETTINGS, *ONE_OF, *SOME_OF, "loss", "lr") and before[:2] in ("", "tr"):
                console.note(f"a setting of training is set by --set train.{setting}={text}")
        raise

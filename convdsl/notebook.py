"""`%load_ext convdsl`: networks in cells of a notebook.

%%cnn [--set NAME=VALUE ...] [--model NAME]

The cell is the text of a `.cnn` file. Each of its models becomes a variable of its own name;
the last one is shown. Imports are of files beside the notebook, or of the zoo. What is wrong is
shown at the line of the cell.
"""

from __future__ import annotations

import argparse
import inspect
import shlex
from pathlib import Path
from typing import Any, NoReturn

from convdsl import zoo
from convdsl.cli.options import assignment, settings_of
from convdsl.diagnostics import InputError, SourceFile
from convdsl.elaborate import check_definitions, elaborate, spans_of_models
from convdsl.elaborate.files import project_root
from convdsl.ir.model import Model


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext convdsl` calls."""

    def cnn(line: str, cell: str) -> Model | None:
        found = models_in(line, cell, f"cell {len(shell.user_ns['In']) - 1}")
        shell.push(found)
        return list(found.values())[-1] if found else None

    cnn.__doc__ = inspect.cleandoc(__doc__ or "")
    shell.register_magic_function(cnn, magic_kind="cell", magic_name="cnn")


def models_in(line: str, cell: str, name: str) -> dict[str, Model]:
    """The models of a cell by name; none of a cell of blocks alone. `line` is what stands beside
    `%%cnn`, `name` what the cell is called where something is wrong. Raises convdsl.Error."""
    asked = _asked(line)
    source = SourceFile(name, f"\n{cell}")  # the magic has the cell's first line
    root, given = project_root(Path(name)), settings_of(asked.set)
    names = [asked.model] if asked.model else list(spans_of_models(source))
    if not names:
        check_definitions(source, root=root, zoo=zoo.folder())
    return {
        model: elaborate(source, model=model, parameters=given, root=root, zoo=zoo.folder())
        for model in names
    }


class _Line(argparse.ArgumentParser):
    """The options of the magic, which never end a notebook."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"%%cnn: {message}")


def _asked(line: str) -> argparse.Namespace:
    parser = _Line(prog="%%cnn", add_help=False, allow_abbrev=False)
    parser.add_argument("--set", action="append", default=[], type=assignment)
    parser.add_argument("--model")
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InputError(f"%%cnn: {error}") from None
    return parser.parse_args(words)

"""Say what is wrong in .cnn files: in every model of each, also what goes beyond a budget.

Exit code 0: nothing; 1: findings; 2: the files cannot be read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from convdsl.cli import budgets, console
from convdsl.cli.options import add_format, add_set, completes_files, parameters, plain_path
from convdsl.diagnostics import CompileError

if TYPE_CHECKING:
    from pathlib import Path

    from convdsl.diagnostics import Diagnostic
    from convdsl.ir.model import Model


def configure(parser: argparse.ArgumentParser) -> None:
    completes_files(
        parser.add_argument("model", nargs="+", metavar="FILE", help="a .cnn file, or FILE:NAME")
    )
    add_set(parser)
    budgets.configure(parser)
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 despite findings")
    add_format(parser, ("text", "json", "github"), "text")


def run(options: argparse.Namespace) -> int:
    found: dict[tuple[Any, ...], Diagnostic] = {}
    for name in options.model:
        for diagnostic in _check(name, options):
            place = diagnostic.to_json()
            key = (place["file"] or "", place["line"] or 0, place["column"] or 0, diagnostic.code)
            found.setdefault(key, diagnostic)  # models of a file share what is around them
    _show([found[key] for key in sorted(found)], options.format)
    if not found and options.format == "text":
        count = len(options.model)
        console.note(f"{count} file{'s' if count > 1 else ''} checked, nothing found")
    return 1 if found and not options.exit_zero else 0


def _check(name: str, options: argparse.Namespace) -> Iterator[Diagnostic]:
    from convdsl.runtime.saved import is_artifact

    head, colon, model = name.rpartition(":")
    try:
        if is_artifact(plain_path(name)):
            from convdsl.cli.info import facts_of

            facts = facts_of(name)
            console.note(
                f"{name} is an artifact of {facts['model']}, whole; `convdsl info` says more"
            )
        elif _is_source(plain_path(name)):
            yield from _check_file(plain_path(name), None, options)
        elif colon and _is_source(plain_path(head)):
            yield from _check_file(plain_path(head), model, options)
        else:
            from convdsl import loading

            loaded = loading.load(name, **parameters(options))
            yield from loaded.warnings
            if budgets.are_set(options):
                yield from budgets.findings(loaded, None, options)
    except CompileError as error:
        yield from error.diagnostics


def _is_source(path: Path) -> bool:
    return path.suffix == ".cnn" and path.is_file()


def _check_file(path: Path, model: str | None, options: argparse.Namespace) -> Iterator[Diagnostic]:
    """One model of a file, or every one, or its blocks where it holds no model."""
    from convdsl import zoo
    from convdsl.elaborate import check_file, load_file, model_spans

    folder, given = zoo.folder(), parameters(options)
    spans = model_spans(path)
    if not spans:
        yield from check_file(path, zoo=folder)
    for name in spans if model is None else (model,):
        try:
            loaded = load_file(path, model=name, parameters=given, zoo=folder)
        except CompileError as error:
            yield from error.diagnostics
        else:
            yield from loaded.warnings
            yield from _misjudged(loaded)
            if budgets.are_set(options):
                yield from budgets.findings(loaded, spans[name], options)


def _misjudged(model: Model) -> tuple[Diagnostic, ...]:
    """Losses and metrics of the `train` block that cannot judge what the network puts out."""
    if model.training is None:
        return ()
    from convdsl.training.judging import disagreements

    return disagreements(model)


def _show(found: Sequence[Diagnostic], format: str) -> None:
    if format == "json":
        console.result(json.dumps([d.to_json() for d in found], indent=2, ensure_ascii=False))
    elif format == "github":
        for diagnostic in found:
            console.result(_github(diagnostic))
    elif found:
        color = console.use_colour(sys.stdout)
        text = "\n\n".join(diagnostic.render(color=color) for diagnostic in found)
        console.result(text, drawn=True)


def _github(diagnostic: Diagnostic) -> str:
    """A workflow command, which GitHub turns into an annotation of the line."""
    data = diagnostic.to_json()
    kind = "error" if diagnostic.severity == "error" else "warning"
    places = {
        "file": data["file"],
        "line": data["line"],
        "col": data["column"],
        "endLine": data["end_line"],
        "endColumn": data["end_column"],
        "title": f"convdsl {diagnostic.code}",
    }
    fields = ",".join(
        f"{key}={_escape(str(value), property=True)}"
        for key, value in places.items()
        if value is not None
    )
    message = "\n".join([diagnostic.message, *(f"help: {text}" for text in diagnostic.help)])
    return f"::{kind} {fields}::{_escape(message)}"


def _escape(text: str, *, property: bool = False) -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if property else text

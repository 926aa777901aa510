"""Say what is wrong in .cnn files: in every model of each.

Exit code 0: nothing; 1: findings; 2: the files cannot be read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from convdsl.cli import console
from convdsl.cli.options import add_format, add_set, completes_files, parameters, plain_path
from convdsl.diagnostics import CompileError, SourceFile

if TYPE_CHECKING:
    from convdsl.diagnostics import Diagnostic


def configure(parser: argparse.ArgumentParser) -> None:
    completes_files(
        parser.add_argument("model", nargs="+", metavar="FILE", help="a .cnn file, or FILE:NAME")
    )
    add_set(parser)
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
    from convdsl import driver

    try:
        subjects = _subjects(name)
    except CompileError as error:
        yield from error.diagnostics
        return
    for subject in subjects:
        try:
            driver.load(subject, **parameters(options))
        except CompileError as error:
            yield from error.diagnostics


def _subjects(name: str) -> list[str]:
    """What to load for a file: each of its models, or nothing where it holds blocks alone."""
    from convdsl.elaborate.files import FileProblem, read_text
    from convdsl.syntax import ast
    from convdsl.syntax.limits import SOURCE_BYTES
    from convdsl.syntax.parser import parse

    path = plain_path(name)
    if not path.is_file():
        return [name]
    try:
        text = read_text(path.resolve(), SOURCE_BYTES)
    except FileProblem:
        return [name]  # loading it says what is wrong
    items = parse(SourceFile(name, text)).items
    if not any(isinstance(item, ast.Model) for item in items):
        console.note(f"{name} holds no model: only its syntax is checked")
    return [f"{name}:{item.name.id}" for item in items if isinstance(item, ast.Model)]


def _show(found: Sequence[Diagnostic], format: str) -> None:
    if format == "json":
        console.result(json.dumps([d.to_json() for d in found], indent=2, ensure_ascii=False))
    elif format == "github":
        for diagnostic in found:
            console.result(_github(diagnostic))
    elif found:
        console.result("\n\n".join(diagnostic.render() for diagnostic in found))


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

"""Say what is wrong in .cnn files.

Exit code 0: nothing; 1: findings; 2: the files cannot be read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from convdsl.cli import console
from convdsl.cli.options import add_format, completes_files, parameters
from convdsl.diagnostics import CompileError

if TYPE_CHECKING:
    from convdsl.diagnostics import Diagnostic


def configure(parser: argparse.ArgumentParser) -> None:
    completes_files(
        parser.add_argument("model", nargs="+", metavar="FILE", help="a .cnn file, or FILE:NAME")
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="set a parameter"
    )
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 despite findings")
    add_format(parser, ("text", "json", "github"), "text")


def run(options: argparse.Namespace) -> int:
    from convdsl import driver

    found: list[Diagnostic] = []
    for name in options.model:
        try:
            driver.load(name, **parameters(options))
        except CompileError as error:
            found.extend(error.diagnostics)
    _show(found, options.format)
    if not found and options.format == "text":
        console.note(f"{len(options.model)} checked, nothing found")
    return 1 if found and not options.exit_zero else 0


def _show(found: Sequence[Diagnostic], format: str) -> None:
    if format == "json":
        console.result(json.dumps([d.to_json() for d in found], indent=2, ensure_ascii=False))
    elif format == "github":
        for diagnostic in found:
            console.result(_github(diagnostic))
    else:
        for diagnostic in found:
            console.result(f"{diagnostic.render()}\n")


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

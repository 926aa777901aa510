"""Say what is inside an artifact: the network, what it was compiled for, its sizes.

The file is read and its checksums are compared; its machine code is neither mapped nor run.
`convdsl report FILE` shows the figures that it carries.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from convdsl.cli import console, listing
from convdsl.cli.files import plain_path
from convdsl.cli.options import add_format, completes
from convdsl.diagnostics import InputError
from convdsl.places import kind_of, nothing_at


def configure(parser: argparse.ArgumentParser) -> None:
    completes(
        parser.add_argument("artifact", metavar="FILE", help="what `compile` wrote"), "artifact"
    )
    add_format(parser)


def run(options: argparse.Namespace) -> int:
    facts = facts_of(options.artifact)
    if options.format == "json":
        console.result(json.dumps(facts, indent=2, ensure_ascii=False))
        return 0
    rows = [{"fact": _NAMES.get(n, n), "value": _text(v)} for n, v in facts.items()]
    listing.show(rows, options.format, spare=())
    if any(part.get("more bytes") for part in facts[_AS_READ]):
        console.note(_TWICE)
    return 0


_AS_READ = "as code reads them"
_NAMES = {_AS_READ: "as read"}  # in tables, where the longest name moves all values
_TWICE = "weights that code for several sizes reads in orders of its own are there once for each"


def facts_of(path: str) -> dict[str, Any]:
    """What an artifact says of itself. ArtifactError where it is damaged, InputError where it is
    none."""
    from convdsl.runtime import artifact
    from convdsl.runtime.saved import described, is_artifact

    place = plain_path(path)
    if not is_artifact(place):
        if place.is_file():
            with place.open("rb"):
                pass  # one that cannot be read is not known to be none
        if not place.exists():
            raise InputError(nothing_at(path, ".cdsl"))
        text = "; `convdsl report` says what is in a network" if place.suffix == ".cnn" else ""
        kind = kind_of(place)
        raise InputError(
            f"{path} is no artifact: it is {kind}; `convdsl compile` writes them{text}"
        )
    return described(place, artifact.read(place).manifest)


def _text(value: Any) -> str:
    match value:
        case str():
            return value
        case dict():
            return ", ".join(f"{name} {_text(part)}" for name, part in value.items()) or "-"  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list():
            between = "; " if any(isinstance(part, dict) for part in value) else ", "  # pyright: ignore[reportUnknownVariableType]
            return between.join(map(_text, value)) or "-"  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case None:
            return "-"
        case _:
            return listing.cell(value)

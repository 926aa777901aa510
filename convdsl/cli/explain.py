"""Say what a code of a diagnostic means, with a text that is wrong and one that is right.

Without a code all of them are listed. docs/diagnostics.md has the same as one page.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING

from convdsl.cli import console, listing
from convdsl.cli.options import add_format, completes
from convdsl.cli.parsing import suggestion
from convdsl.diagnostics import InputError

if TYPE_CHECKING:
    from convdsl.explanations import Explanation


def configure(parser: argparse.ArgumentParser) -> None:
    completes(
        parser.add_argument(
            "code", nargs="?", metavar="CODE", help="such as E0501, of a diagnostic"
        ),
        "code",
    )
    add_format(parser, ("table", "json", "md"))


def run(options: argparse.Namespace) -> int:
    from convdsl import explanations

    every = explanations.every()
    if options.code is None:
        rows = [{"code": e.code, "level": e.level, "title": e.title} for e in every.values()]
        listing.show(rows, options.format)
        return 0
    found = explanations.find(options.code)
    if found is None:
        from convdsl.ops import SPELLINGS

        wanted = options.code.upper()
        whole = f"E{wanted:0>4}"  # of 201
        begun = [code for code in every if code.startswith(wanted)] if len(wanted) > 1 else []
        near = f"; so begin {', '.join(begun)}" if begun else ""
        if whole in every:
            near = f"; did you mean {whole}?"
        elif not begun and not wanted.isdigit():
            near = suggestion(wanted, every)
        if options.code in SPELLINGS:
            near = f"; of operators `convdsl ops {options.code}` tells"
        raise InputError(f"no code {options.code}{near or '; `convdsl explain` lists them'}")
    if options.format == "json":
        console.result(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        console.result(found.markdown() if options.format == "md" else _text(found))
    return 0


def _text(found: Explanation) -> str:
    """As wide as the terminal, but not wider than is read with ease."""
    width = min(console.table_width() or 100, 100)
    parts = [
        f"{found.level}[{found.code}]: {found.title}",
        textwrap.fill(found.text, width, break_long_words=False, break_on_hyphens=False),
        f"wrong, {found.where}:",
        textwrap.indent(found.wrong.rstrip(), "    "),
        "right:",
        textwrap.indent(found.right.rstrip(), "    "),
    ]
    return "\n\n".join(parts)

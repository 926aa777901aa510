"""Say what is wrong in .cnn files: in every model of each, also what goes beyond a budget.

Budgets and the list of models stand in convdsl.toml, in the file's folder or above; without FILE,
and where it is named, all models of the list are checked. `convdsl explain CODE` says
more of a finding. Exit code 0: nothing; 1: findings; 2: the files cannot be read.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from convdsl.cli import budgets, console
from convdsl.cli.answering import FAILURE
from convdsl.cli.options import add_format, add_set, completes
from convdsl.cli.watching import add_watch, watch

FORMATS = ("text", "json", "github", "sarif")


def configure(parser: argparse.ArgumentParser) -> None:
    completes(
        parser.add_argument(
            "model", nargs="*", metavar="FILE", help="a .cnn file, FILE:NAME, or a convdsl.toml"
        ),
        "checked",
    )
    add_set(parser)
    budgets.configure(parser)
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 despite findings")
    add_format(parser, FORMATS, "text")
    add_watch(parser)


def run(options: argparse.Namespace) -> int:
    from convdsl.forking import CYCLES

    once = partial(CYCLES.during, partial(_once, options))  # what is made is kept until the end
    return watch(once, options, options.model) if options.watch else once()


def _once(options: argparse.Namespace) -> int:
    from convdsl import __version__, findings
    from convdsl.cli.checking import Checks

    checks = Checks(options)
    found = checks.all()
    color = console.use_colour(sys.stdout)
    text = findings.draw(
        found, options.format, version=__version__, color=color, width=console.width(sys.stdout)
    )
    if text:
        console.result(text, drawn=options.format == "text")
    for said in checks.damaged:
        console.error(said)
    if checks.damaged:
        return FAILURE
    if options.format == "text":
        console.note(_closing([finding.diagnostic.code for finding in found], checks.count))
    return 1 if found and not options.exit_zero else 0


def _closing(codes: list[str], files: int) -> str:
    """What stands behind the findings: how to learn more of them."""
    if not codes:
        return f"{files} file{'s' if files > 1 else ''} checked, nothing found"
    others = "" if len(set(codes)) == 1 else ", and so for the other codes"
    return f"`convdsl explain {codes[0]}` says more of it{others}"

"""Serve an editor: findings, shapes, completion and more, by the Language Server Protocol.

Editors start it and speak with it by its standard input and output; docs/editors.md says how they
are told to.
"""

from __future__ import annotations

import argparse

from convdsl.diagnostics import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stdio", action="store_true", help="as it is anyway: some editors say so")


def run(options: argparse.Namespace) -> int:
    try:
        from convdsl.lsp import stdio
    except ModuleNotFoundError as error:
        if error.name not in ("pygls", "lsprotocol"):
            raise
        text = "the language server needs the package pygls: pip install 'convdsl[lsp]'"
        raise InputError(text) from None
    stdio.run(verbose=options.verbose)
    return 0

"""Where things are shown: in how many columns of text, and in notebooks, where models, graphs,
reports and findings show themselves as HTML.

How they look is worked out by `reporting`, which stands above them; it is loaded when it is asked
for, by name.
"""

from __future__ import annotations

import os
import shutil
from importlib import import_module
from typing import TextIO


def columns_of(stream: TextIO) -> int | None:
    """The columns that text is fitted to: what COLUMNS says, else those of the terminal; None where
    there is neither, in pipes and files, whose lines are as long as they are."""
    said = os.environ.get("COLUMNS", "")
    if not (stream.isatty() or (said.isascii() and said.isdigit() and int(said) > 0)):
        return None
    return shutil.get_terminal_size().columns


class Shown:
    """An object that a notebook shows."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return import_module("convdsl.reporting.fragments").html(self)

"""What notebooks ask of objects: models, graphs, reports and findings show themselves as HTML.

How they look is worked out by `reporting`, which stands above them; it is loaded when it is asked
for, by name.
"""

from __future__ import annotations

from importlib import import_module


class Shown:
    """An object that a notebook shows."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return import_module("convdsl.reporting.fragments").html(self)

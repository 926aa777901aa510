"""Renderings of analysis results: tables for people, JSON and CSV for programs.

What analyses need is loaded with the first result: listings are drawn without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convdsl.reporting.rendering import (
        FORMATS,
        render,
        render_passes,
        render_roofline,
        report,
    )

__all__ = ["FORMATS", "render", "render_passes", "render_roofline", "report"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'convdsl.reporting' has no attribute {name!r}")
    return getattr(import_module("convdsl.reporting.rendering"), name)

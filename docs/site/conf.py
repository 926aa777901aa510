"""Sphinx' settings: `make docs` builds docs/ as a site that needs no network."""

from __future__ import annotations

import re
from typing import Any

import convdsl
from convdsl.syntax.highlight import ConvdslLexer

project = "convdsl"
author = "the convdsl authors"
copyright = author
release = convdsl.__version__
root_doc = "index"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
add_module_names = False

# Types of others, and of rooms that have no page, are named without a link.
nitpick_ignore_regex = [("py:(class|data|obj)", r".*")]

smartquotes = False  # options begin with two hyphens
html_theme = "furo"
html_title = "convdsl"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
suppress_warnings = ["misc.highlighting_failure"]  # of texts that are shown because they are wrong
highlight_language = "text"
pygments_style = "friendly"
pygments_dark_style = "native"


def as_markdown(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: code in single backticks, formulas and examples indented."""
    made: list[str] = []
    for line in lines:
        indented = line.startswith(" ") and line.strip()
        if indented and (not made or not made[-1].strip()):
            made += ["::", ""]
        made.append(line if indented else _rst(line))
    lines[:] = made


def _rst(line: str) -> str:
    parts = re.split(r"(`[^`]+`)", line)
    parts[::2] = [re.sub(r"([*_|\\])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f"`{part}`" for part in parts[1::2]]
    return "".join(parts)


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.add_lexer("convdsl", ConvdslLexer)
    app.add_lexer("cnn", ConvdslLexer)
    app.connect("autodoc-process-docstring", as_markdown)

"""Pages from the code: every command and option by argparse, the Python interface by autodoc."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator

import convdsl
from convdsl.cli import app

GROUPS = {
    # heading: what of `convdsl`, and of the classes that come out of it
    "From text to results": ["load", "parse", "report", "compile", "emit", "load_executable"],
    "Training": ["train", "Session", "gradient"],
    "Pictures": ["draw"],
    "For other software": ["export", "build_library", "Predictor"],
    "Large images, and schedules": ["tiled", "tuner"],
    "What comes out": ["Model", "Executable", "Diagnostic"],
    "Errors": [
        *("Error", "CompileError", "InputError", "WeightError", "ArtifactError", "DeviceError"),
    ],
}
OTHERS = (
    "convdsl.analysis.report.Report",
    "convdsl.analysis.report.Layer",
    "convdsl.ir.graph.Graph",
    "convdsl.pictures.Picture",
    "convdsl.training.fit.Trained",
    "convdsl.diagnostics.Span",
    "convdsl.diagnostics.SourceFile",
)
FUNCTIONS = {
    "convdsl.pictures": ["draw_class", "draw_curves", "draw_field", "draw_filters", "draw_maps"],
    "convdsl.reporting": ["render"],
    "convdsl.reporting.page": ["html_page"],
}


def python() -> Iterator[str]:
    """The Python interface as reStructuredText: docstrings are read by autodoc."""
    yield from _titled("Python", "=")
    yield from ("Everything is loaded on first use: ``import convdsl`` costs next to nothing.", "")
    left = set(convdsl.__all__) - {name for names in GROUPS.values() for name in names}
    for heading, names in (GROUPS | {"More": sorted(left - {"__version__"})}).items():
        if names:
            yield from _titled(heading, "-")
        for name in names:
            yield from _documented(f"convdsl.{name}", getattr(convdsl, name))
    yield from _titled("Results", "-")
    for path in OTHERS:
        yield from (f".. autoclass:: {path}", "   :members:", "   :no-undoc-members:", "")
    yield from _titled("Pictures and pages", "-")
    for module, names in FUNCTIONS.items():
        for name in names:
            yield from (f".. autofunction:: {module}.{name}", "")


def _documented(path: str, thing: object) -> Iterator[str]:
    if inspect.isclass(thing):
        yield from (f".. autoclass:: {path}", "   :members:", "   :no-undoc-members:", "")
    else:
        yield from (f".. autofunction:: {path}", "")


def _titled(said: str, line: str) -> tuple[str, ...]:
    return ("", said, line * len(said), "")


def commands() -> Iterator[str]:
    """The command line as Markdown: a section for each command."""
    parser = app.parser_of(app.COMMANDS)
    yield from ("# The command line", "", f"{parser.description} `convdsl COMMAND --help` says the")
    yield from ("same. Exit codes: 0 fine, 1 findings, 2 misuse or failure, 130 interrupted.", "")
    yield "| command | |\n|---|---|"
    for name, summary in app.COMMANDS.items():
        yield f"| [{name}](#convdsl-{name}) | {_plain(summary)} |"
    yield from ("", "| options | |", "|---|---|")
    yield from _options(parser._action_groups[1])
    (choices,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    for name, command in choices.items():
        yield from ("", f"## `convdsl {name}`", "")
        yield from _command(command)


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = argparse.HelpFormatter(parser.prog, width=76)
    formatter.add_usage(None, parser._actions, parser._mutually_exclusive_groups, "")
    usage = formatter.format_help().rstrip().replace("\n", "\n    ")
    yield from (_paragraphs(parser.description), "", f"    {usage}", "")
    for group in parser._action_groups:
        if lines := list(_options(group)):
            yield from ("", f"| {group.title} | |", "|---|---|", *lines)
    yield from ("", _paragraphs(parser.epilog), "")


def _options(group: argparse._ArgumentGroup) -> Iterator[str]:
    formatter = argparse.HelpFormatter("convdsl")
    for action in group._group_actions:
        if action.help != argparse.SUPPRESS:
            said = _cell(formatter._format_action_invocation(action))
            yield f"| `{said}` | {_cell(_plain(formatter._expand_help(action)))} |"


def _paragraphs(text: str | None) -> str:
    """Paragraphs filled anew; indented ones are code, as Markdown has it."""
    made: list[str] = []
    for paragraph in (text or "").split("\n\n"):
        if re.search(r"^\s", paragraph, re.MULTILINE):
            made.append("\n".join(f"    {line}" for line in paragraph.splitlines()))
        else:
            made.append(_plain(" ".join(paragraph.split())))
    return "\n\n".join(made)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _plain(text: str) -> str:
    """Text that no Markdown is seen in, but for code."""
    return re.sub(r"([*_<>\[\]])", r"\\\1", text) if "`" not in text else text

"""What layers are called: labels of their own, or names that follow from what they are."""

from __future__ import annotations

import re

from convdsl.diagnostics import Span
from convdsl.elaborate.calls import Binder
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop
from convdsl.syntax import ast

GROUPS = ("seq", "scope")
"""What names several layers at once, as the language writes it."""
LABEL = re.compile(r"[A-Za-z0-9_-]+")
PARTS = re.compile(rf"{LABEL.pattern}(?:\.{LABEL.pattern})*")


class Naming(Binder):
    """Gives layers their names, each once."""

    def claim(
        self,
        context: Context,
        label: ast.Text | None,
        fixed: str | None,
        base: str,
        span: Span,
        positional: bool = True,
    ) -> str:
        """A layer's own part of its name."""
        names = context.names
        part = self.label_of(label, context) if label is not None else fixed
        if part is None:
            part = names.default(base, positional)
        else:
            if names.numbered and positional:
                names.skip()
            here = label.span if label is not None else span
            alike = names.clash(part)
            if alike is not None:
                raise self._called_alike(context, alike, here, names.taken[alike], base)
        names.take(part, label.span if label is not None else span)
        return part

    def _called_alike(
        self, context: Context, part: str, here: Span, before: Span | None, base: str
    ) -> Stop:
        """Two children of one name: told what to do about it by how they came to it."""
        full = context.names.full(part)
        notes = () if before in (None, here) else ((before, "first here"),)
        grouped = base in GROUPS
        if before == here:
            written = f'{base} "{part}{{i}}"' if grouped else f'as "{part}{{i}}"'
            help = f"number them: `for i in range(n) {{ ... {written} ... }}`"
        elif full in self.session.graph.inputs:
            help = "that is the name of an input: call the layer otherwise"
        elif grouped:
            help = f"put both into one `{base} {part} {{ ... }}`, or call one otherwise"
        else:
            help = "call one of them otherwise"
        if not grouped:
            help += "; to share weights, `let f = ...` and use f twice"
        what = f"`{base}`s" if grouped else "layers"
        text = f"two {what} are called `{full}`"
        return self.fail(context, "E0203", text, here, *notes, help=help)

    def label_of(self, label: ast.Text, context: Context, parts: re.Pattern[str] = PARTS) -> str:
        text = self.text(label, context)
        if not parts.fullmatch(text):
            what = "a name" if parts is LABEL else "part of a name"
            dots = "; a dot parts them" if parts is PARTS else ""
            raise self.fail(
                context,
                "E0204",
                f'"{text[:40]}" cannot be {what}',
                label.span,
                help=f"letters, digits, `_` and `-`{dots}",
            )
        return text

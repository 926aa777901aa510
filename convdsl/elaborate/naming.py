"""What layers are called: labels of their own, or names that follow from what they are."""

from __future__ import annotations

import re

from convdsl.diagnostics import Span
from convdsl.elaborate.calls import Binder
from convdsl.elaborate.scope import Context
from convdsl.elaborate.session import Stop
from convdsl.elaborate.values import describe
from convdsl.syntax import ast

GROUPS = ("seq", "scope")
"""What names several layers at once, as the language writes it."""
LABEL = re.compile(r"[A-Za-z0-9_-]+")
_SCOPE = re.compile(r"\b(?:scope|seq)[ \t]+\Z")
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
                if alike != part:
                    raise self._inside_another(context, alike, part, here)
                raise self._called_alike(context, alike, here, names.taken[alike], base)
        names.take(part, label.span if label is not None else span)
        return part

    def _inside_another(self, context: Context, around: str, part: str, here: Span) -> Stop:
        """A name with dots that would stand in what is whole already."""
        before = context.names.taken[around]
        notes = () if before is None else ((before, f"all of `{around}` stands here"),)
        text = f"`{part}` would stand in `{context.names.full(around)}`, which is whole already"
        inside = _SCOPE.search(before.source.text, 0, before.start) if before else None
        help = f'call it otherwise, `as "{part.replace(".", "_")}"`'
        if inside is not None:
            each = f'without the scope give each layer its whole name, `as "{around}.conv"`'
            help = f"put it into the braces of the scope; or {each}"
        return self.fail(context, "E0203", text, here, *notes, help=help)

    def _called_alike(
        self, context: Context, part: str, here: Span, before: Span | None, base: str
    ) -> Stop:
        """Two children of one name: told what to do about it by how they came to it."""
        full = context.names.full(part)
        notes = () if before in (None, here) else ((before, "first here"),)
        grouped = base in GROUPS
        if part == here.text and (of := self.held_by(part, context)) is not None:
            word = base if grouped else "as"
            help = f'`{part}` is the name itself; what it holds, {of}: `{word} "{{{part}}}"`'
            text = f"two {f'`{base}`s' if grouped else 'layers'} are called `{full}`"
            return self.fail(context, "E0203", text, here, *notes, help=help)
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

    def held_by(self, name: str, context: Context) -> str | None:
        """What a variable of that name holds, where a layer could be called after it."""
        value = context.scope.find(name)[1]
        is_text = isinstance(value, str | int) and not isinstance(value, bool)
        return describe(value) if is_text else None

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

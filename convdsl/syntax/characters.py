"""Characters that start no token: what each is taken for, and what is written instead."""

from __future__ import annotations

import re
import unicodedata

from convdsl.diagnostics import Diagnostic, Label, SourceFile

_QUOTES = 'strings stand in plain quotes: "..."'
LOOKALIKES = {
    "'": "strings stand in double quotes",
    "`": "strings stand in double quotes",
    "^": "powers are written `**`",
    "~": "write `not`",
    "\\": "a line goes on inside brackets, and after `->` or an operator",
    "·": "write `*`",
    "⋅": "write `*`",
    "÷": "write `/`",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "≠": "write `!=`",
    "⇒": "write `->`",
    "⟶": "write `->`",
    "‘": _QUOTES,
    "’": _QUOTES,
    "&": "write `and`",
    "|": "layers are joined with `->`; of two conditions, write `or`",
    "!": "write `not`, or `!=` for unequal",
    ";": "a newline ends a statement",
    "@": "matrices are multiplied by `matmul(a, b)`; layers are joined with `->`",
    "?": "write `if condition { a } else { b }`, of tensors where(condition, a, b)",
    "×": "write sizes with the letter x: 3x3",
    "→": "write `->`",
    "–": "write `-`",
    "−": "write `-`",
    "—": "write `-`",
    "“": _QUOTES,
    "”": _QUOTES,
    "„": _QUOTES,
    "«": _QUOTES,
    "»": _QUOTES,
}


IN_A_TYPE = re.compile(r":\s*\w+\[[^\]\n]*\Z")
OPEN_SIZE = "a size that stays open has a name: N"


def bad_character(source: SourceFile, at: int) -> Diagnostic:
    """A character that starts no token."""
    character = source.text[at : at + 1]
    label = (Label(source.span(at, at + 1)),)
    if character == '"':
        end = source.text.find("\n", at)
        label = (Label(source.span(at, end if end >= 0 else len(source.text))),)
        return Diagnostic(
            "E0104", "a string that does not end on its line", label, help=('close it with `"`',)
        )
    if source.text.startswith("||", at):
        return _foreign_sign(source, at, "||", "write `or`")
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    help = _meant(character)
    if character == "?" and IN_A_TYPE.search(source.text[:at]):
        help = (OPEN_SIZE,)
    return Diagnostic("E0103", f"`{shown}` is not part of the language", label, help=help)


def _meant(character: str) -> tuple[str, ...]:
    """What a character stands for: what it is taken for, or the plain one of its kind."""
    if character in LOOKALIKES:
        return (LOOKALIKES[character],)
    plain = unicodedata.normalize("NFKC", character)
    if plain.isspace():
        return ("write a plain space",)
    if unicodedata.category(character) in ("Cf", "Cc"):
        return ("it cannot be seen: delete it",)
    if len(plain) == 1 and plain.isascii():
        return (f"write `{plain}`",)
    return ()


def _foreign_sign(source: SourceFile, at: int, sign: str, help: str) -> Diagnostic:
    label = (Label(source.span(at, at + len(sign))),)
    return Diagnostic("E0103", f"`{sign}` is not part of the language", label, help=(help,))

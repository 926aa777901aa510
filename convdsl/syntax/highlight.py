"""Colours for `.cnn` text: a Pygments lexer and a TextMate grammar, from one set of patterns.

Both work word by word, with the words of grammar/convdsl.lark (tests compare them). Pygments is
there wherever rich is; the TextMate grammar is grammar/convdsl.tmLanguage.json, which editors
read, and `textmate()` is what it is made from.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from pygments.lexer import RegexLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text

from convdsl.syntax.words import KEYWORDS

CONSTANTS = frozenset({"true", "false"})
WORD_OPERATORS = frozenset({"and", "or", "not"})
DECLARATIONS = frozenset({"block", "model", "let", "input", "output", "default", "train"})
CONTROL = KEYWORDS - CONSTANTS - WORD_OPERATORS - DECLARATIONS | {"where"}

STRING = r'"(?:\\.|[^"\\\n])*"'
SIZE = r"[0-9]+(?:x[0-9]+)+(?![A-Za-z0-9_])"
FLOAT = r"[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)"
INTEGER = r"[0-9]+(?:_[0-9]+)*"
OPERATOR = r"->|\*\*|//|[=!<>]=|[-+*/%<>=]"
PUNCTUATION = r"[(){}\[\],.:]"
CALLED = r"[A-Za-z_][A-Za-z0-9_]*(?=[ \t]*\()"
NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def _any(words: frozenset[str]) -> str:
    return rf"(?:{'|'.join(sorted(words))})(?![A-Za-z0-9_])"


class ConvdslLexer(RegexLexer):
    """The `.cnn` language for Pygments."""

    name = "convdsl"
    aliases = ("convdsl", "cnn")
    filenames = ("*.cnn",)
    flags = re.ASCII
    tokens: ClassVar[dict[str, list[Any]]] = {
        "root": [
            (r"[ \t\r\f\ufeff\n]+", Text.Whitespace),
            (r"#[^\n]*", Comment.Single),
            (STRING, String.Double),
            (SIZE, Number.Other),
            (FLOAT, Number.Float),
            (INTEGER, Number.Integer),
            (_any(CONSTANTS), Keyword.Constant),
            (_any(WORD_OPERATORS), Operator.Word),
            (_any(DECLARATIONS), Keyword.Declaration),
            (_any(CONTROL), Keyword),
            (CALLED, Name.Function),
            (NAME, Name),
            (OPERATOR, Operator),
            (PUNCTUATION, Punctuation),
        ]
    }


def textmate() -> dict[str, Any]:
    """The TextMate grammar."""
    rules = [
        ("comment.line.number-sign", r"#.*$"),
        ("constant.numeric.size", SIZE),
        ("constant.numeric.float", FLOAT),
        ("constant.numeric.integer", INTEGER),
        ("constant.language", rf"\b{_any(CONSTANTS)}"),
        ("keyword.operator.word", rf"\b{_any(WORD_OPERATORS)}"),
        ("storage.type", rf"\b{_any(DECLARATIONS)}"),
        ("keyword.control", rf"\b{_any(CONTROL)}"),
        ("entity.name.function", CALLED),
        ("variable.other", NAME),
        ("keyword.operator", OPERATOR),
        ("punctuation", PUNCTUATION),
    ]
    interpolation = {
        "name": "meta.interpolation.convdsl",
        "begin": r"\{",
        "end": r"\}",
        "patterns": [{"include": "$self"}],
    }
    escape = {"name": "constant.character.escape.convdsl", "match": r"\\."}
    string = {
        "name": "string.quoted.double.convdsl",
        "begin": '"',
        "end": '"',
        "patterns": [escape, interpolation],
    }
    patterns = [{"name": f"{name}.convdsl", "match": match} for name, match in rules]
    return {
        "name": "convdsl",
        "scopeName": "source.convdsl",
        "fileTypes": ["cnn"],
        "patterns": [string, *patterns],
    }

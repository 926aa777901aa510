"""The Pygments lexer and the TextMate grammar, against the Lark grammar."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String

from convdsl.syntax.highlight import ConvdslLexer, textmate
from convdsl.syntax.parser import tokens
from convdsl.syntax.tables import grammar_text
from convdsl.syntax.words import KEYWORDS

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.cnn"))
TEXTMATE = ROOT / "grammar" / "convdsl.tmLanguage.json"

CLASSES = {
    "NAME": Name, "STRING": String, "INT": Number.Integer, "FLOAT": Number.Float,
    "SIZE": Number.Other, "SIGN": Operator, "FACTOR": Operator, "COMPARE": Operator,
    "ARROW": Operator, "POWER": Operator, "EQUAL": Operator, "AND": Operator.Word,
    "OR": Operator.Word, "NOT": Operator.Word, "TRUE": Keyword.Constant, "FALSE": Keyword.Constant,
}  # fmt: skip
SCOPES = {
    "NAME": ("variable.other", "entity.name.function"), "INT": ("constant.numeric.integer",),
    "FLOAT": ("constant.numeric.float",), "SIZE": ("constant.numeric.size",),
    "STRING": ("string.quoted.double",), "TRUE": ("constant.language",),
    "FALSE": ("constant.language",), "AND": ("keyword.operator.word",),
    "OR": ("keyword.operator.word",), "NOT": ("keyword.operator.word",),
}  # fmt: skip
PUNCTUATED = {"LPAR", "RPAR", "LSQB", "RSQB", "LBRACE", "RBRACE", "COMMA", "COLON", "DOT"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_pygments_sees_the_words_of_the_parser(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    coloured = {
        start: (kind, start + len(value))
        for start, kind, value in ConvdslLexer().get_tokens_unprocessed(text)
    }
    assert not any(kind in Error for kind, _ in coloured.values())
    for terminal, start, end in tokens(text):
        if terminal == "_NL":
            continue
        kind, stop = coloured[start]
        assert stop == end
        default = Punctuation if terminal in PUNCTUATED else Keyword
        assert kind in CLASSES.get(terminal, default), (terminal, kind)


def scope_at(text: str, at: int) -> tuple[str, int]:
    """(scope, end) of the first rule of the TextMate grammar that matches at a place."""
    for rule in textmate()["patterns"]:
        if "match" in rule:
            match = re.compile(rule["match"], re.MULTILINE).match(text, at)
            if match:
                return rule["name"], match.end()
        elif text.startswith('"', at):
            closing = re.compile(r'"(?:\\.|[^"\\\n])*"').match(text, at)
            assert closing is not None
            return rule["name"], closing.end()
    raise AssertionError(text[at : at + 20])


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_textmate_sees_the_words_of_the_parser(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for terminal, start, end in tokens(text):
        if terminal == "_NL":
            continue
        scope, stop = scope_at(text, start)
        assert stop == end
        name = scope.removesuffix(".convdsl")
        if terminal in SCOPES:
            assert name in SCOPES[terminal]
        elif terminal in PUNCTUATED:
            assert name == "punctuation"
        elif terminal in CLASSES:
            assert name == "keyword.operator"
        else:
            assert name in ("keyword.control", "storage.type")


def test_the_words_are_those_of_the_grammar() -> None:
    words = set(re.findall(r'"([a-z]+)"', grammar_text()))
    assert words == KEYWORDS | {"where"}


def test_comments() -> None:
    found = list(ConvdslLexer().get_tokens("# hello\n"))
    assert found[0] == (Comment.Single, "# hello")


def test_the_textmate_file_is_current(request: pytest.FixtureRequest) -> None:
    text = json.dumps(textmate(), indent=2) + "\n"
    if request.config.getoption("--update-golden"):
        TEXTMATE.write_text(text, encoding="utf-8")
    assert TEXTMATE.read_text(encoding="utf-8") == text, "run `make golden`"

"""`convdsl fmt`: one layout, idempotent, comments kept, the tree unchanged."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path
from typing import Any

import pytest

from convdsl.diagnostics import CompileError, SourceFile, Span
from convdsl.syntax.format import format_source
from convdsl.syntax.parser import parse

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.cnn"))


def bare(node: Any) -> Any:
    """A tree without its spans."""
    if isinstance(node, tuple):
        return tuple(bare(item) for item in node)
    if dataclasses.is_dataclass(node) and not isinstance(node, Span):
        fields = (f.name for f in dataclasses.fields(node) if f.name != "span")
        return type(node).__name__, *(bare(getattr(node, name)) for name in fields)
    return node


def comments(text: str) -> list[str]:
    found = re.findall(r'"(?:\\.|[^"\\\n])*"|(#[^\n]*)', text)
    return [comment.lstrip("# ").rstrip() for comment in found if comment]


def check(text: str) -> str:
    made = format_source(text)
    assert format_source(made) == made
    assert bare(parse(SourceFile("a", made))) == bare(parse(SourceFile("a", text)))
    assert comments(made) == comments(text)
    return made


@pytest.mark.dear
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_zoo_is_formatted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert check(text) == text


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("seed", range(3))
def test_spaces_do_not_matter(path: Path, seed: int) -> None:
    """Indentation and spaces between words drawn anew."""
    draw = random.Random(seed)

    def shake(match: re.Match[str]) -> str:
        if not match.group(1):
            return match.group()
        return " " * draw.choice([1, 2, 3, 9])

    text = path.read_text(encoding="utf-8")
    text = re.sub(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|(?<![\n ])( +)(?!\n)', shake, text)
    text = re.sub(r"^ *", lambda m: "\t" * draw.choice([0, 1, 3]), text, flags=re.MULTILINE)
    check(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("let a=1+2*-3", "let a = 1 + 2 * -3\n"),
        ("let a = - 1", "let a = -1\n"),
        ("let a = [ 1,2 , 3 ]", "let a = [1, 2, 3]\n"),
        ("let a = 2**3//2%5", "let a = 2 ** 3 // 2 % 5\n"),
        ("let a = b [1] . c (2)", "let a = b[1].c(2)\n"),
        ("let a = f(x=1 , y = [2])", "let a = f(x = 1, y = [2])\n"),
        ("block b {\na = in\nin+(a)\n}", "block b {\n    a = in\n    in + (a)\n}\n"),
        ("block b {\na = in\n- a\n}", "block b {\n    a = in\n    -a\n}\n"),
        ("let a = [b\nin c, d\n- e]", "let a = [b\n         in c, d\n         - e]\n"),
        ("#comment", "# comment\n"),
        ("#!tool\n##  two", "#!tool\n##  two\n"),
        ("let a = 1 #x", "let a = 1  # x\n"),
        ("let a = 1      # aligned", "let a = 1      # aligned\n"),
        ("\n\n\nlet a = 1\n\n\n\nlet b = 2\n\n", "let a = 1\n\nlet b = 2\n"),
        ("let a = (1,\n2)".replace("(1,\n2)", "[1,\n2]"), "let a = [1,\n         2]\n"),
        ("let a = [\n1,\n2\n]", "let a = [\n    1,\n    2\n]\n"),
        ("let a = 1 +\n2", "let a = 1 +\n    2\n"),
        ("block b{relu}", "block b { relu }\n"),
        ("block b{\n\nrelu\n\n}", "block b {\n    relu\n}\n"),
        ("block b {\nin->relu\n->relu\n}", "block b {\n    in -> relu\n       -> relu\n}\n"),
        ("block b {\nin\n->relu\n->relu\n}", "block b {\n    in\n    -> relu\n    -> relu\n}\n"),
        ("block b {\nx=if a {in}\nelse {relu(in)}\n}",
         "block b {\n    x = if a { in }\n        else { relu(in) }\n}\n"),
        ("block b {\nin -> repeat (2){\nrelu\n}\n}",
         "block b {\n    in -> repeat (2) {\n              relu\n          }\n}\n"),
        ("block b {\nfor i in[1,2]{relu}\n}", "block b {\n    for i in [1, 2] { relu }\n}\n"),
        ("block b {\nin[0]\n}", "block b {\n    in[0]\n}\n"),
        ("block b {\nassert not 1 in[1]\n}", "block b {\n    assert not 1 in [1]\n}\n"),
        ("model m {\ninput x:f32[N,3]where N%2==0\nx\n}",
         "model m {\n    input x: f32[N, 3] where N % 2 == 0\n    x\n}\n"),
        ("model m {\ninput x:f32[N,3]\nwhere N%2==0\nx\n}",
         "model m {\n    input x: f32[N, 3]\n        where N % 2 == 0\n    x\n}\n"),
        ("model m {\ninput c:bool[3]\nwhere(c,\n1.0,0.0)\n}",
         "model m {\n    input c: bool[3]\n    where(c,\n          1.0, 0.0)\n}\n"),
        ("block b\n{\nrelu\n}", "block b\n{\n    relu\n}\n"),
        ('use "a.cnn":b,c as d', 'use "a.cnn": b, c as d\n'),
        ("let s = 3x3", "let s = 3x3\n"),
        ("let a = 1e-3 + 2.5E+4", "let a = 1e-3 + 2.5E+4\n"),
        ("", ""),
        ("\r\nlet a = 1\r\n", "let a = 1\n"),
        ("block b {\nin\n# why\n->relu\n}", "block b {\n    in\n    # why\n    -> relu\n}\n"),
    ],
)  # fmt: skip
def test_layout(before: str, after: str) -> None:
    assert check(before) == after


def test_what_does_not_parse_is_refused() -> None:
    with pytest.raises(CompileError):
        format_source("let a = ")


HEADS = (
    "repeat 2",
    "for _w in [1, 2]",
    "for _w in y -> relu -> split(2)",
    "if true",
    "seq",
    "seq body",
    "scope body",
)
FORMS = {
    "lines": "x -> {head} {{\nconv(8, 3x3)\n-> relu\n}} -> output y",
    "a comment": "x -> relu\n-> {head} {{\nconv(8, 3x3) -> bn\n-> relu # why\n\n}} -> output y",
    "statements": "x -> {head} {{\na = in -> bn\nif a.rank == 4 {{\na\n-> relu\n}} else {{ a }}\n"
    "}}\n-> output y",
    "in a body": "x -> {head} {{\nbn -> {head} {{\nrelu\n}}\n-> tanh\n}} -> output y",
    "begun on the line": "x -> {head} {{ conv(8, 3x3)\n-> relu }}\n-> output y",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("head", HEADS)
def test_bodies_of_all_kinds_are_indented_alike(head: str, form: str) -> None:
    """Those of seq and scope as those of loops: four to the right of what they belong to."""
    text = "model m {{\ninput x: f32[N, 3, 8, 8]\n" + FORMS[form] + "\n}}\n"
    made, usual = (check(text.format(head=each)).splitlines() for each in (head, HEADS[0]))
    column = len(head) - len(HEADS[0]) if form == "begun on the line" else 0
    for line, other in zip(made, usual, strict=True):
        shift = column if other.startswith(" " * 12) else 0
        assert line.replace(head, HEADS[0]) == " " * max(shift, 0) + other[max(-shift, 0) :]
    if form == "lines":
        at = made[2].index(head)
        assert [line.index(line.strip()) - at for line in made[3:6]] == [4, 4, 0]

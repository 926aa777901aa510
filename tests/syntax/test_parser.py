"""Trees, spans, and syntax errors of several items at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from convdsl.diagnostics import CompileError, Diagnostic, SourceFile
from convdsl.syntax import ast
from convdsl.syntax.format import format_source
from convdsl.syntax.parser import parse
from convdsl.syntax.slips import STOP, slip

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.cnn"))


def let(text: str) -> Any:
    (item,) = parse(SourceFile("a", f"let a = {text}")).items
    assert isinstance(item, ast.Let)
    return item.value


def errors(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(CompileError) as caught:
        parse(SourceFile("a", text))
    return caught.value.diagnostics


def children(node: Any) -> Iterator[ast.Node]:
    stack = [getattr(node, f.name) for f in dataclasses.fields(node) if f.name != "span"]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(item)
        elif isinstance(item, ast.Node):
            yield item


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_spans_nest(path: Path) -> None:
    """Every node stands inside its parent, and names stand where they say."""
    stack: list[ast.Node] = [parse(SourceFile(path.name, path.read_text(encoding="utf-8")))]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Name):
            assert node.span.text == node.id
        for child in children(node):
            assert node.span.start <= child.span.start < child.span.end <= node.span.end
            stack.append(child)


def test_operators_of_one_precedence_are_flat() -> None:
    node = let("1 + 2 - 3 * 4 + 5")
    assert [symbol for symbol, _ in node.rest] == ["+", "-", "+"]
    assert let("1 < 2 <= 3").rest[1][0] == "<="
    assert len(let("2 ** 3 ** 4").operands) == 3
    assert len(let("a -> b -> c").stages) == 2


def test_signs_and_nots_cancel() -> None:
    assert let("- - -1").negative
    assert not let("--1").negative
    assert let("not true").odd
    assert not let("not not true").odd
    assert not let("not not [  # not a comment that counts\n] == notes").odd


def test_interpolation() -> None:
    text = let(r'"a{b + 1}c\{\n"')
    assert text.parts[0] == "a"
    assert text.parts[1].span.text == "b + 1"
    assert text.parts[2] == "c{\n"
    assert let('"plain"').plain == "plain"
    assert let('""').plain == ""


def test_places_inside_interpolations() -> None:
    (found,) = errors('let a = "x{1 +}"')
    assert found.span is not None
    assert found.span.column in (14, 15)


@pytest.mark.parametrize(
    "text",
    ["let a = 1\n  + 2".replace("\n  +", " +\n"), "let a = [1,\n\n2]", "let a = f(\n1\n)",
     "let a =\n1", "let a = b\n-> c", "let a = b # why\n# and\n-> c",
     "let a = if b { c }\nelse { d }", "let a = b\nas c", "block a\n{\n}", "block a {}",
     "\n\nlet a = 1\n\n", "let a = not\ntrue"],
)  # fmt: skip
def test_newlines_that_end_nothing(text: str) -> None:
    assert len(parse(SourceFile("a", text)).items) == 1


BETWEEN = ["+", "*", "**", "==", "!=", "<", "<=", ">", ">=", "and", "or"]


@pytest.mark.parametrize("operator", BETWEEN)
@pytest.mark.parametrize("gap", ["\n", "\n  ", " # why\n\n# and\n  "])
def test_an_operator_goes_on_with_the_line_before(operator: str, gap: str) -> None:
    """It is read as on one line, and written with a space on either side."""
    (split,) = parse(SourceFile("a", f"let a = b{gap}{operator} c")).items
    (whole,) = parse(SourceFile("a", f"let a = b {operator} c")).items
    assert isinstance(split, ast.Let)
    assert isinstance(whole, ast.Let)
    assert type(split.value) is type(whole.value)
    assert split.value.span.text.split()[-2:] == [operator, "c"]
    made = format_source(f"let a = b{gap}{operator} c").splitlines()
    assert made[-1] == f"    {operator} c"


def test_losses_over_lines() -> None:
    """Settings of `train`, each of several lines."""
    text = "train {\nloss = mse(y, t)\n  - 0.5 * l1(y, t)\n  + mse(z, t)\noptimizer = sgd\n}"
    (train,) = parse(SourceFile("a", text)).items
    assert isinstance(train, ast.Train)
    assert len(train.settings) == 2


def test_a_sign_starts_a_statement() -> None:
    """`-in` is a value. `+` begins one where nothing stands before it."""
    (plus,) = parse(SourceFile("a", "block a {\n+ in\n}")).items
    assert isinstance(plus, ast.Block)
    (block,) = parse(SourceFile("a", "block a {\nin\n-in\n}")).items
    assert isinstance(block, ast.Block)
    assert len(block.body.statements) == 2


@pytest.mark.parametrize(
    ("body", "statements"),
    [
        ("{\n  y = in\n    - a\n}", 1),
        ("{\n  y = in # why\n\n    # and\n    - a -> relu\n}", 1),
        ("{\n  y = in\n  - a\n}", 2),  # no further in than its statement
        ("{\n  y = in\n- a\n}", 2),
        ("{\n  y = in\n    -a\n}", 2),  # no space behind the sign
        ("{ y = in\n  - a\n}", 2),
        ("{ y = in\n            - a }", 1),
        ("{\n  input b\n    - b\n}", 2),  # which no value ends
        ("{\n  y = if b { in } else {\n      a\n  }\n    - a\n}", 1),
        ("{\n  y = repeat 2 { in\n  }\n  - a\n}", 2),
        ("{\n  y = [in,\n  a][0]\n    - a\n}", 1),
    ],
)
def test_a_minus_goes_on_where_it_is_written_so(body: str, statements: int) -> None:
    """Further in than its statement, with a space behind it; and the layout keeps what it is."""
    text = f"block b {body}"
    for written in (text, format_source(text), format_source(format_source(text))):
        (block,) = parse(SourceFile("a", written)).items
        assert isinstance(block, ast.Block)
        assert len(block.body.statements) == statements, written
    assert format_source(format_source(text)) == format_source(text)
    assert ("- a" in format_source(text)) == (statements == 1)


def test_every_bad_item_is_reported() -> None:
    found = errors("let a = \nblock b { in -> }\nlet c = 1\nlet d = 3 x 3\nblock e { 1 2 }\n")
    places = [(d.span.line, d.span.text) for d in found if d.span is not None]
    assert places == [(2, "block"), (2, "}"), (4, "x"), (5, "2")]


def test_no_token_names_in_messages() -> None:
    starts = "let|let a|let a = (|block|model m { input|let a = 1 2|train {|use|use 3|default"
    for text in (*starts.split("|"), "let a = f(,)", "let a = [,]", "block b { for }"):
        for found in errors(text):
            shown = found.render()
            for name in ("LPAR", "RPAR", "__", "ANON", "NAME", "$END", "_NL", "SIGN", "INT"):
                assert name not in shown, shown


def test_the_version_comes_first() -> None:
    assert parse(SourceFile("a", "convdsl 1\nlet a = 1")).items
    assert [d.code for d in errors("let a = 1\nconvdsl 1")] == ["E0105"]
    assert [d.code for d in errors("convdsl 3")] == ["E0105"]


@pytest.mark.parametrize("word", ["seq ", "seq (", "val x "])
def test_lines_that_nobody_wrote_are_not_looked_at_for_slips(word: str) -> None:
    """Rules take the square of a line's length: 120 KB of `seq` took 18 seconds."""
    assert slip(f"    x -> {word * 30_000}{STOP}, y", ()) is None
    assert slip(f"    x -> seq (conv(3) {{ a{STOP}, y", ()) is not None

"""The parser's tables are those of the grammar, and the parser does with them what Lark does."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lark
import pytest
from fuzz.test_mutations import SEEDS, exchange_subtree, mutate_words

from convdsl.diagnostics import CompileError, SourceFile
from convdsl.syntax import ast, lalr, tables
from convdsl.syntax.build import Builder
from convdsl.syntax.layout import NEWLINE, LayoutError, arrange


def test_tables_are_those_of_the_grammar() -> None:
    assert lalr.read(lalr.TABLES) == tables.text(), "run `make grammar`"


def test_the_grammar_is_in_the_folder_that_make_grammar_writes_to() -> None:
    assert (lalr.GRAMMARS[-1] / lalr.GRAMMAR).is_file()


class Layout:
    """Lark's hook between lexer and parser."""

    always_accept: Iterable[str] = (NEWLINE,)

    def process(self, stream: Iterator[lark.Token]) -> Iterator[lark.Token]:
        return arrange(stream)


@functools.cache
def reference() -> lark.Lark:
    return lark.Lark(
        lalr.grammar_text(),
        parser="lalr",
        lexer="basic",
        postlex=Layout(),
        start=list(tables.STARTS),
        propagate_positions=True,
        maybe_placeholders=True,
    )


def lark_tree(source: SourceFile, text: str, offset: int, start: str) -> Any:
    """The syntax tree by Lark: its parse tree, and then the builder from the leaves upwards."""
    builder = Builder(source, lambda inner, at: lark_tree(source, inner, at, "expression"))

    def build(tree: lark.Tree[lark.Token]) -> Any:
        children = [build(c) if isinstance(c, lark.Tree) else c for c in tree.children]
        at = (0, 0) if tree.meta.empty else (tree.meta.start_pos, tree.meta.end_pos)
        span = source.span(offset + at[0], offset + at[1])
        return getattr(builder, tree.data)(span, children)

    return build(reference().parse(text, start=start))


def by_lark(text: str) -> object:
    try:
        return lark_tree(SourceFile("a", text), text, 0, "file")
    except lark.exceptions.UnexpectedCharacters as error:
        return ("character", error.pos_in_stream)
    except lark.exceptions.UnexpectedToken as error:
        at = -1 if error.token.type == "$END" else error.token.start_pos
        return ("word", error.token.type, at, frozenset(error.accepts))
    except LayoutError as error:
        return ("layout", error.kind, error.at, error.opener)
    except CompileError as error:
        return ("literal", error.diagnostics[0].span)


def own_tree(source: SourceFile, text: str, offset: int, start: str) -> Any:
    builder = Builder(source, lambda inner, at: own_tree(source, inner, at, "expression"))

    def build(rule: str, start: int, end: int, children: list[Any]) -> Any:
        span = source.span(offset + max(start, 0), offset + max(end, 0))
        return getattr(builder, rule)(span, children)

    return lalr.parse(arrange(lalr.words(text)), start, build)


def by_ourselves(text: str) -> object:
    try:
        return own_tree(SourceFile("a", text), text, 0, "file")
    except lalr.BadCharacter as error:
        return ("character", error.at)
    except lalr.BadWord as error:
        return ("word", error.word.type, error.word.start_pos, frozenset(error.accepts))
    except LayoutError as error:
        return ("layout", error.kind, error.at, error.opener)
    except CompileError as error:
        return ("literal", error.diagnostics[0].span)


def agree(text: str) -> None:
    mine, theirs = by_ourselves(text), by_lark(text)
    if isinstance(mine, tuple) and mine[0] == "literal" and mine != theirs:
        return  # a bad literal is found while parsing, by Lark's way only where all else parses
    assert mine == theirs


@pytest.mark.parametrize("text", SEEDS, ids=range(len(SEEDS)))
def test_the_zoo(text: str) -> None:
    assert isinstance(by_ourselves(text), ast.File)
    agree(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", "# nothing", "let a = (1)", "let a = ((1 + 2) * 3)", "let a = -(-1) ** -2",
        "let a = [\n1,\n2,\n]", "let a = f(x, y = 2,)(z)[0].b", 'let a = "{1 + (2)}"',
        "let a = not not true or false and 1 < 2 in [3]", "block b { }", "block b() { relu }",
        "block b(a, c = 1,) {\nif a { relu } else if c { in } else { f }\n}",
        "model m { x -> relu -> output y }", "let a = 1 +", "let a = )", "let = 1", "$", "a = (",
        "model m {", "use 'a'", "let a = 1 2", "model m { input x: f32[N, 3] where N > 1, N < 5 }",
    ],
)  # fmt: skip
def test_small_texts(text: str) -> None:
    agree(text)


@pytest.mark.parametrize("seed", range(10))
def test_mutations(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(20):
        agree(draw.choice([mutate_words, exchange_subtree])(draw))


def test_an_installation_without_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lalr, "GRAMMARS", (tmp_path,))
    with pytest.raises(FileNotFoundError, match="installed without convdsl.tables.json"):
        lalr.read(lalr.TABLES)

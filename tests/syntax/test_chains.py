"""Chains of reductions make the trees, positions and errors that Lark's own steps make."""

from __future__ import annotations

import random
from pathlib import Path

import lark
import pytest
from lark.parsers.lalr_parser import LALR_Parser

from convdsl.syntax import chains, tables
from convdsl.syntax.layout import LayoutError

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.cnn"))


@pytest.fixture(scope="module")
def plain() -> lark.Lark:
    """Lark as it comes, from the same tables."""
    parser = tables.worked_out(_plugins={}, tree_class=None, propagate_positions=True)
    assert type(parser.parser.parser) is LALR_Parser
    assert isinstance(tables.parser().parser.parser, chains.ChainedParser)
    return parser


def outcome(parser: lark.Lark, text: str, start: str) -> object:
    try:
        return seen(parser.parse(text, start=start))
    except lark.UnexpectedToken as error:
        return error.token.type, error.token.start_pos, error.accepts, error.expected
    except lark.UnexpectedCharacters as error:
        return error.pos_in_stream
    except LayoutError as error:
        return error.kind, error.at


def seen(tree: lark.Tree) -> list[object]:
    """All of a tree, from the root down: what Lark says of it, and where it stands."""
    found: list[object] = []
    for part in tree.iter_subtrees_topdown():
        found.append((part.data, *place(part)))
        found += [
            (word.type, str(word), word.start_pos, word.end_pos) if word is not None else None
            for word in part.children
            if not isinstance(word, lark.Tree)
        ]
    return found


def place(tree: lark.Tree) -> tuple[int, int]:
    if isinstance(tree, chains.Placed):
        return max(tree.start, 0), tree.end
    return (0, 0) if tree.meta.empty else (tree.meta.start_pos, tree.meta.end_pos)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_trees_of_files_are_those_of_single_steps(plain: lark.Lark, path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = outcome(tables.parser(), text, "file")
    assert isinstance(found, list)
    assert found == outcome(plain, text, "file")


@pytest.mark.dear
@pytest.mark.parametrize("start", ["file", "expression"])
def test_changed_files_are_right_or_wrong_in_the_same_way(plain: lark.Lark, start: str) -> None:
    """Words are dropped, doubled and put in elsewhere; and a few make whole texts."""
    draw = random.Random(start)
    kinds: set[str] = set()
    short = [path.read_text(encoding="utf-8") for path in EXAMPLES]
    short = [text for text in short if len(text) < 1500]
    known = [str(word) for text in short for word in tables.parser().lex(text)]
    known += ["**", "//", "==", "not", "1_000", "2.5", '"{x + 1}"', "true", "assert", ")", "}", "]"]
    for _ in range(300):
        if draw.random() < 0.5:
            text = " ".join(draw.choices(known, k=draw.randrange(1, 12)))
        else:
            words = draw.choice(short).split(" ")
            at = draw.randrange(len(words))
            words[at : at + draw.randrange(2)] = draw.choices(known, k=draw.randrange(3))
            text = " ".join(words)
        found = outcome(tables.parser(), text, start)
        assert found == outcome(plain, text, start), text
        kinds.add(type(found).__name__)
    assert {"list", "tuple"} <= kinds


def test_single_steps_are_taken_where_somebody_wants_to_mend(plain: lark.Lark) -> None:
    """`on_error` is Lark's; the parser takes it as Lark does, and says no places."""
    asked: list[object] = []

    def mend(error: lark.UnexpectedInput) -> bool:
        asked.append(error.token.type)
        return True

    text = "let a = = 1"
    tree = plain.parser.parse(text, "file", on_error=mend)
    assert asked == ["EQUAL"]
    assert tree == tables.parser().parser.parse(text, "file", on_error=mend)

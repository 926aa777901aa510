"""Kept tables are those of the grammar; where they are not, the grammar decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lark
import pytest

from convdsl.syntax import tables


def kept() -> dict[str, Any]:
    return json.loads(tables.read(tables.TABLES), object_pairs_hook=tables._numbered)


def table(parser: lark.Lark) -> Any:
    return parser.parser.parser._parse_table


def differences(left: Any, right: Any) -> list[object]:
    """Where two tables differ, walked side by side: Lark numbers states as it happens."""
    found: list[object] = []
    pairs = {left.start_states[name]: right.start_states[name] for name in left.start_states}
    waiting = list(pairs.items())
    for mine, theirs in waiting:  # which grows
        if left.states[mine].keys() != right.states[theirs].keys():
            found.append((left.states[mine].keys(), right.states[theirs].keys()))
            continue
        for symbol, (action, argument) in left.states[mine].items():
            other, target = right.states[theirs][symbol]
            if action.name == "Shift" == other.name:
                if argument not in pairs:
                    pairs[argument] = target
                    waiting.append((argument, target))
                elif pairs[argument] != target:
                    found.append((symbol, "leads elsewhere"))
            elif (action.name, rule(argument)) != (other.name, rule(target)):
                found.append((symbol, argument, target))
    ends = {name: pairs.get(state) for name, state in left.end_states.items()}
    return found if ends == right.end_states else [*found, ends]


def rule(made: Any) -> object:
    """All of a rule that the tree depends on."""
    options = made.options
    symbols = [(s.name, s.is_term and s.filter_out) for s in made.expansion]
    empty = list(options.empty_indices)
    return (made.origin.name, made.alias, symbols, options.expand1, options.keep_all_tokens, empty)


def settings(parser: lark.Lark) -> object:
    words = [(w.name, w.pattern.value, w.priority) for w in parser.terminals]
    options = {k: v for k, v in vars(parser.options)["options"].items() if k != "postlex"}
    return sorted(words), sorted(parser.lexer_conf.ignore), options


def test_kept_tables_are_those_of_the_grammar() -> None:
    assert kept()["made_from"] == tables.made_from(), "run `make grammar`"
    ours, anew = tables.restored(kept()), tables.worked_out()
    assert len(table(ours).states) == len(table(anew).states) > 300
    assert differences(table(ours), table(anew)) == [], "run `make grammar`"
    assert settings(ours) == settings(anew), "run `make grammar`"


@pytest.mark.dear(share=4)
def test_the_file_is_what_make_grammar_writes() -> None:
    """But for the numbers of states."""
    assert (tables.GRAMMARS[-1] / tables.TABLES).read_text("utf-8") == tables.read(tables.TABLES)
    again = json.loads(tables.text(), object_pairs_hook=tables._numbered)
    assert again.keys() == kept().keys()
    assert differences(table(tables.restored(again)), table(tables.restored(kept()))) == []


@pytest.mark.dear(share=4)
def test_differences_are_found() -> None:
    other = lark.Lark(
        tables.grammar_text().replace('"repeat" disjunction', '"repeat" sum'),
        parser="lalr",
        lexer="basic",
        start=["file", "expression"],
    )
    assert differences(table(tables.worked_out()), table(other))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A grammar and tables of its own, and no parser made yet."""
    for name in (tables.GRAMMAR, tables.TABLES):
        (tmp_path / name).write_text(tables.read(name), encoding="utf-8")
    monkeypatch.setattr(tables, "GRAMMARS", (tmp_path,))
    monkeypatch.setattr(tables, "parser", tables.parser.__wrapped__)
    return tmp_path


def test_matching_tables_are_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tables, "worked_out")
    assert tables.parser().parse("let a = 1", start="file").data == "file"


@pytest.mark.dear(share=4)
def test_another_grammar_counts(folder: Path) -> None:
    grammar = folder / tables.GRAMMAR
    grammar.write_text(tables.grammar_text().replace('"repeat"', '"again"'), encoding="utf-8")
    tree = tables.parser().parse("again 3 { relu }", start="expression")
    assert tree.data == "repetition"


def test_another_lark_works_tables_out_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lark, "__version__", "1.99")
    monkeypatch.delattr(tables, "restored")
    assert tables.parser().parse("let a = 1", start="file").data == "file"


def test_an_installation_without_tables(folder: Path) -> None:
    (folder / tables.TABLES).unlink()
    with pytest.raises(FileNotFoundError, match=r"installed without convdsl\.tables\.json"):
        tables.parser()

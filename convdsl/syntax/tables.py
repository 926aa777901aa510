"""Lark's parser of grammar/convdsl.lark, without the wait for its tables.

Lark takes a quarter of a second to work LALR(1) tables out. `make grammar` keeps what Lark says of
itself (`memo_serialize`, as for its standalone parsers: plain data) as JSON beside the grammar, and
reading that takes a twentieth. Kept tables are used where the grammar and the version of Lark are
those they were made from; elsewhere Lark works them out anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from convdsl.syntax.chains import ChainedParser, Placed, Words
from convdsl.syntax.layout import NEWLINE, arrange

GRAMMAR, TABLES = "convdsl.lark", "convdsl.tables.json"
_HERE = Path(__file__).resolve().parent
PLUGINS = {"LALR_Parser": ChainedParser, "BasicLexer": Words}
_OWN: dict[str, Any] = {"_plugins": PLUGINS, "tree_class": Placed, "propagate_positions": False}
GRAMMARS = (_HERE.parent / "grammar", _HERE.parent.parent / "grammar")  # wheel, checkout


class Layout:
    """Lark's hook between lexer and parser (a `PostLex`)."""

    always_accept: Iterable[str] = (NEWLINE,)

    def process(self, stream: Iterator[lark.Token]) -> Iterator[lark.Token]:
        return arrange(stream)


def read(name: str) -> str:
    """A file of the grammar, from the wheel or the checkout."""
    for folder in GRAMMARS:
        if (folder / name).is_file():
            return (folder / name).read_text(encoding="utf-8")
    raise FileNotFoundError(f"convdsl is installed without {name}")


def grammar_text() -> str:
    """The text of grammar/convdsl.lark."""
    return read(GRAMMAR)


@functools.cache
def parser() -> lark.Lark:
    """The parser of the language."""
    kept = json.loads(read(TABLES), object_pairs_hook=_numbered)
    return restored(kept) if kept["made_from"] == made_from() else worked_out()


def made_from() -> dict[str, str]:
    """What tables depend on."""
    grammar = hashlib.sha256(grammar_text().encode()).hexdigest()
    return {"lark": lark.__version__, "grammar": grammar}


def worked_out(**others: Any) -> lark.Lark:
    """The parser from the text of the grammar; `others`: options of Lark for comparisons."""
    return lark.Lark(
        grammar_text(),
        parser="lalr",
        lexer="basic",
        postlex=Layout(),
        start=["file", "expression"],
        maybe_placeholders=True,
        **{**_OWN, **others},
    )


def restored(kept: dict[str, Any]) -> lark.Lark:
    """The parser from tables that Lark made before."""
    options = {**kept["data"]["options"], "postlex": Layout(), **_OWN}
    return lark.Lark.load({"data": {**kept["data"], "options": options}, "memo": kept["memo"]})


def _numbered(pairs: list[tuple[str, Any]]) -> dict[Any, Any]:
    """JSON has strings for keys; those of states, words and memos are numbers."""
    if pairs and pairs[0][0].isdigit():
        return {int(key): value for key, value in pairs}
    return dict(pairs)


def text() -> str:
    """The tables as they stand in the file, a state or rule a line."""
    data, memo = worked_out().memo_serialize([TerminalDef, Rule])
    for ours in ("postlex", *_OWN):
        del data["options"][ours]
    made = {"made_from": made_from(), "data": data, "memo": memo}
    return json.dumps(made, separators=(",", ":")).replace('},"', '},\n"') + "\n"


if __name__ == "__main__":
    (GRAMMARS[-1] / TABLES).write_text(text(), encoding="utf-8")

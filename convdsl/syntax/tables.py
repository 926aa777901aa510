"""The grammar's LALR(1) tables, worked out by Lark when the grammar changes (`make grammar`).

Lark takes a quarter of a second for it, which every start of convdsl would pay. The tables are
kept beside the grammar as JSON, a test compares them with it, and convdsl.syntax.lalr runs them.
The only module that imports lark.
"""

from __future__ import annotations

import json
from typing import Any

import lark
from lark.lexer import BasicLexer

from convdsl.syntax.lalr import GRAMMARS, TABLES, grammar_text

STARTS = ("file", "expression")


def tables() -> dict[str, Any]:
    """What the parser needs to know of the grammar, as JSON has it; see lalr.Tables."""
    made = lark.Lark(
        grammar_text(),
        parser="lalr",
        lexer="basic",
        start=list(STARTS),
        maybe_placeholders=True,
    )
    found = made.parser.parser._parse_table  # pyright: ignore[reportPrivateUsage]
    states = dict.fromkeys(dict.fromkeys(found.start_states[s] for s in STARTS), 0)
    rules: dict[Any, int] = {}
    rows: list[dict[str, int]] = []
    waiting = list(states)
    for number in waiting:  # which grows: states and rules are numbered as they are met
        states[number] = len(rows)
        rows.append({})
        for _, (action, argument) in sorted(found.states[number].items()):
            if action.name == "Shift" and argument not in states:
                states[argument] = 0
                waiting.append(argument)
            elif action.name != "Shift":
                rules.setdefault(argument, len(rules))
    for number, row in zip(waiting, rows, strict=True):
        for symbol, (action, argument) in sorted(found.states[number].items()):
            shifts = action.name == "Shift"
            row[symbol] = states[argument] if shifts else -1 - rules[argument]
    return {
        **_words(made.parser.lexer),
        "starts": {start: states[found.start_states[start]] for start in STARTS},
        "ends": {start: states[found.end_states[start]] for start in STARTS},
        "rules": [_rule(rule) for rule in rules],
        "states": rows,
    }


def _words(lexer: BasicLexer) -> dict[str, Any]:
    """The pattern of all words, what is no word, and the texts that are words of their own."""
    (compiled,) = lexer.scanner._mres  # pyright: ignore[reportPrivateUsage]
    own = {
        name: dict(sorted((w.pattern.value, w.name) for w in callback.scanner.terminals))
        for name, callback in sorted(lexer.callback.items())
    }
    return {"pattern": compiled.pattern, "ignored": sorted(lexer.ignore_types), "own": own}


def _rule(rule: Any) -> list[Any]:
    """[name, left side, number of symbols, which of them are children, whether one stands alone]

    A child is a symbol's position, -1 - position where its own children are meant, or null.
    """
    options = rule.options
    empty = options.empty_indices or (False,) * len(rule.expansion)
    before = [len(run) for run in "".join(str(int(is_empty)) for is_empty in empty).split("0")]
    children: list[int | None] = []
    for at, symbol in enumerate(rule.expansion):
        children += [None] * before[at]
        if not (symbol.is_term and symbol.filter_out):
            is_part = not symbol.is_term and symbol.name.startswith("_")
            children.append(-1 - at if is_part else at)
    children += [None] * before[len(rule.expansion)]
    name = rule.alias or rule.origin.name
    alone = bool(options.expand1) and not rule.alias
    return [name, rule.origin.name, len(rule.expansion), children, alone]


def text() -> str:
    """The tables as they stand in the file, a state a line."""
    made = tables()
    states = ",\n".join(json.dumps(row, separators=(",", ":")) for row in made.pop("states"))
    rules = ",\n".join(json.dumps(row, separators=(",", ":")) for row in made.pop("rules"))
    head = json.dumps(made, indent=1)[:-2]
    return f'{head},\n "rules": [\n{rules}\n],\n "states": [\n{states}\n]}}\n'


if __name__ == "__main__":
    (GRAMMARS[-1] / TABLES).write_text(text(), encoding="utf-8")

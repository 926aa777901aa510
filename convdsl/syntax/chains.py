"""Lark's LALR(1) parser with reductions of one symbol to another taken together.

A name in an argument is an atom, a postfix, a power and so on through fifteen levels of precedence
before the comma behind it is looked at: five reductions of six change the state and nothing else.
Where they lead depends on the two states on top of the stack and on the word that follows, and is
remembered. Lark's stacks, trees, positions and errors stay what they are: this is a class in the
place that Lark leaves for one (`_plugins`, where its compiled parser goes).
"""

from __future__ import annotations

from typing import Any

from lark.grammar import Rule
from lark.lexer import LexerThread, Token
from lark.parsers.lalr_analysis import Action, Shift
from lark.parsers.lalr_parser import LALR_Parser
from lark.parsers.lalr_parser_state import ParseConf, ParserState

States = dict[int, dict[str, tuple[Action, Any]]]
Chains = dict[tuple[int, int, str], int]


class ChainedParser(LALR_Parser):
    """Lark's parser; `parse` takes chains of reductions at once."""

    _chains: Chains

    def parse(self, lexer: LexerThread, start: str, on_error: Any = None) -> Any:
        if on_error is not None:
            return super().parse(lexer, start, on_error)
        if not hasattr(self, "_chains"):
            self._chains = {}
        state = ChainedState(ParseConf(self._parse_table, self.parser.callbacks, start), lexer)
        state.chains = self._chains
        return self.parser.parse_from_state(state)


class ChainedState(ParserState):
    """Where a parse stands. Copies, by which Lark asks what else would be accepted, go step by
    step: they have no chains."""

    __slots__ = ("chains",)

    chains: Chains

    def feed_token(self, token: Token, is_end: bool = False) -> Any:
        """Lark's reductions and shift for a word; the tree, where it is the last."""
        if not hasattr(self, "chains"):
            return super().feed_token(token, is_end)
        chains, stack, values = self.chains, self.state_stack, self.value_stack
        states, callbacks = self.parse_conf.states, self.parse_conf.callbacks
        end = self.parse_conf.end_state
        word = token.type
        while True:
            if len(stack) > 1:
                key = stack[-2], stack[-1], word
                reached = chains.get(key)
                if reached is None:
                    reached = chains[key] = _reached(states, *key)
                stack[-1] = reached
                if is_end and reached == end:
                    return values[-1]
            found = states[stack[-1]].get(word)
            if found is None:
                return super().feed_token(token, is_end)  # which says what is wrong
            action, to = found
            if action is Shift:
                stack.append(to)
                values.append(token)
                return None
            size = len(to.expansion)
            children: list[Any] = values[-size:] if size else []
            if size:
                del stack[-size:], values[-size:]
            values.append(callbacks[to](children))
            stack.append(states[stack[-1]][to.origin.name][1])
            if is_end and stack[-1] == end:
                return values[-1]


def _reached(states: States, below: int, top: int, word: str) -> int:
    """The state that reductions of one symbol, whose value stays, lead to from `top`."""
    while word in states[top]:
        action, rule = states[top][word]
        if action is Shift or not _keeps_its_value(rule):
            break
        top = states[below][rule.origin.name][1]
    return top


def _keeps_its_value(rule: Rule) -> bool:
    """Whether what a rule makes is its one part."""
    options = rule.options
    if not options.expand1 or rule.alias is not None or any(options.empty_indices):
        return False
    return len(rule.expansion) == 1 and not getattr(rule.expansion[0], "filter_out", False)

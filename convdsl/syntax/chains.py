"""Lark's LALR(1) parser with reductions of one symbol to another taken together.

A name in an argument is an atom, a postfix, a power and so on through fifteen levels of precedence
before the comma behind it is looked at: five reductions of six change the state and nothing else.
Where they lead depends on the two states on top of the stack and on the word that follows, and is
remembered. Lark's stacks, trees and errors stay what they are: these are classes in the places that
Lark leaves for them (`_plugins`, where its compiled parser goes).

Where a tree stands follows from two numbers, and Lark's own way to it is dear: it asks the children
of every tree, from both sides, for ten figures each. A reduction comes before the next word is
taken, so that a tree ends where the last word did; and it begins where its first part does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import lark
from lark.grammar import Rule
from lark.lexer import BasicLexer, LexerState, LexerThread, Token
from lark.parsers.lalr_analysis import Action, Shift
from lark.parsers.lalr_parser import LALR_Parser
from lark.parsers.lalr_parser_state import ParseConf, ParserState

States = dict[int, dict[str, tuple[Action, Any]]]
Step = tuple[int, int | None, tuple[int, str, Callable[[list[Any]], Any]] | None]
Chains = dict[tuple[int, int, str], Step]
"""By two states and a word: the state that chains lead to, then the one that takes the word, or how
long a reduction is, of what, and what makes its value. Neither: Lark goes on by itself."""

_NONE = -1  # below the first state


class Placed(lark.Tree):
    """A tree and where it stands in the text. One in brackets stands inside of them."""

    start: int = -1  # not known yet
    end: int = 0


class Words(BasicLexer):
    """Lark's words and where they stand, by a single loop; lines are not counted."""

    def lex(self, state: LexerState, parser_state: Any = None) -> Iterator[Token]:
        scanner, text, end = self.scanner, state.text, state.text.end
        ignored, callbacks = self.ignore_types, self.callback
        counter = state.line_ctr  # where Lark goes on, if it is to
        at = counter.char_pos
        while at < end:
            found = scanner.match(text, at)
            if found is None:
                self.next_token(state, parser_state)  # which says what is wrong
                return
            value, kind = found
            after = at + len(value)
            if kind not in ignored:
                word = Token(kind, value, at, None, None, None, None, after)
                if kind in callbacks:
                    word = callbacks[kind](word)
                state.last_token, counter.char_pos = word, after
                yield word
            at = counter.char_pos = after


class ChainedParser(LALR_Parser):
    """Lark's parser; `parse` takes chains of reductions at once."""

    _chains: Chains

    def parse(self, lexer: LexerThread, start: str, on_error: Any = None) -> Any:
        if on_error is not None:
            return super().parse(lexer, start, on_error)
        if not hasattr(self, "_chains"):
            self._chains = {}
        state = ChainedState(ParseConf(self._parse_table, self.parser.callbacks, start), lexer)
        state.chains, state.starts, state.end = self._chains, [], 0
        return self.parser.parse_from_state(state)


class ChainedState(ParserState):
    """Where a parse stands. Copies, by which Lark asks what else would be accepted, go step by
    step: they have no chains."""

    __slots__ = ("chains", "end", "starts")

    chains: Chains
    starts: list[int]  # of the values on the stack
    end: int  # of the last word on it

    def feed_token(self, token: Token, is_end: bool = False) -> Any:
        """Lark's reductions and shift for a word; the tree, where it is the last."""
        if not hasattr(self, "chains"):
            return super().feed_token(token, is_end)
        chains, stack, values = self.chains, self.state_stack, self.value_stack
        states, last, starts = self.parse_conf.states, self.parse_conf.end_state, self.starts
        word = token.type
        while True:
            key = stack[-2] if len(stack) > 1 else _NONE, stack[-1], word
            step = chains.get(key)
            if step is None:
                step = chains[key] = self._step(*key)
            stack[-1], to, reduction = step
            if is_end and stack[-1] == last:
                return values[-1]
            if reduction is not None:
                size, origin, callback = reduction
                children = values[-size:]
                del stack[-size:], values[-size:]
                if size > 1:
                    del starts[1 - size :]
                made = callback(children)
                if type(made) is Placed and made.start < 0:
                    made.start, made.end = starts[-1], self.end
                values.append(made)
                stack.append(states[stack[-1]][origin][1])
            elif to is None:
                return super().feed_token(token, is_end)  # which says what is wrong
            else:
                stack.append(to)
                values.append(token)
                starts.append(token.start_pos or 0)
                self.end = token.end_pos or 0
                return None

    def _step(self, below: int, top: int, word: str) -> Step:
        """What two states on top of the stack and the word that follows lead to."""
        states = self.parse_conf.states
        reached = top if below == _NONE else _reached(states, below, top, word)
        action, to = states[reached].get(word, (None, None))
        if action is Shift:
            return reached, to, None
        if to is None or not to.expansion:  # an empty file alone is made of nothing
            return reached, None, None
        return reached, None, (len(to.expansion), to.origin.name, self.parse_conf.callbacks[to])


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

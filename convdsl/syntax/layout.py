"""Where a newline ends a statement, and whether brackets match.

Runs between lexer and parser. A newline counts except inside ( ) and [ ], at the edges of
{ } and of the file, after an operator that wants a right-hand side, and before a line that
starts with `->`, `else`, `as`, `{`, an operator of BETWEEN or, in an `input`, `where` (but not the
operator: `where(` and several arguments). `-` begins values, too: it goes on where it is written as
between two, with a space behind it, and further in than its statement (`takes_away`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Protocol, TypeVar

from convdsl.syntax import limits


class Token(Protocol):
    """What layout needs of a word."""

    @property
    def type(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def start_pos(self) -> int | None: ...
    @property
    def end_pos(self) -> int | None: ...


T = TypeVar("T", bound=Token)

NEWLINE = "_NL"
INTERPOLATION = 10  # words that one in a text counts as
CLOSERS = {"(": ")", "[": "]", "{": "}"}
OPERATORS = ("->", "+", "-", "*", "/", "//", "%", "**", "=", "==", "!=", "<", "<=", ">", ">=")
CONTINUES_AFTER = frozenset(
    [*OPERATORS, ",", ":", ".", "and", "or", "not", "else", "{", "as", "where"]
)
BETWEEN = frozenset(["+", "*", "**", "==", "!=", "<", "<=", ">", ">=", "and", "or"])
"""Operators that no statement begins with (`+x` is x), and no comment of another language."""
CONTINUES_BEFORE = frozenset([*BETWEEN, "->", "else", "as", "{", "}"])
WITHOUT_VALUE = frozenset(["input", "use", "labels", "convdsl"])
"""Words of statements that no value ends: below them `-` begins one."""


class LayoutError(Exception):
    """A bracket without its partner, too many open ones, or too many words."""

    def __init__(self, kind: str, at: int, opener: tuple[str, int] | None) -> None:
        super().__init__(kind)
        self.kind = kind  # "unopened", "mismatched", "unclosed", "nesting" or "words"
        self.at = at
        self.opener = opener


def arrange(tokens: Iterable[T]) -> Iterator[T]:
    """Drop the newlines that end nothing; raise LayoutError where brackets do not match."""
    stack: list[tuple[str, int]] = []
    pending: T | None = None
    previous: str | None = None
    around: list[tuple[str | None, int]] = []  # of the bodies that are open
    head: str | None = None  # first word of the current statement
    begins = 0  # and its column
    line = 0  # where the current line starts
    words = 0
    ahead = _Ahead(tokens)
    for token in ahead:
        words += 1 + INTERPOLATION * (token.value.count("{") if token.type == "STRING" else 0)
        if words > limits.WORDS:
            raise LayoutError("words", token.start_pos or 0, None)
        if token.type == NEWLINE:
            line = (token.start_pos or 0) + len(token.value)
            if previous not in CONTINUES_AFTER and not (stack and stack[-1][0] != "{"):
                pending = token
            continue
        text = str(token.value)
        column = (token.start_pos or 0) - line
        if pending is not None:
            goes_on = continues(text, head) and not (text == "where" and begins_arguments(ahead()))
            if text == "-":
                goes_on = takes_away(column, begins, ahead.apart(token), head)
            if previous is not None and not goes_on:
                yield pending
                head = None
            pending = None
        if head is None or previous == "{":
            head, begins = text, column
        if text == "{":
            around.append((head, begins))
        elif text == "}" and around:
            head, begins = around.pop()
        _track(stack, text, token.start_pos or 0)
        yield token
        previous = text if token.type != "STRING" else '"'
    if stack:
        raise LayoutError("unclosed", stack[-1][1], stack[-1])


class _Ahead(Iterator[T]):
    """The tokens in their order, some of them looked at before their turn."""

    def __init__(self, tokens: Iterable[T]) -> None:
        self._rest = iter(tokens)
        self._seen: deque[T] = deque()

    def __next__(self) -> T:
        return self._seen.popleft() if self._seen else next(self._rest)

    def __call__(self) -> Iterator[str]:
        """The texts of what comes next."""
        for number in count():
            if number == len(self._seen):
                token = next(self._rest, None)
                if token is None:
                    return
                self._seen.append(token)
            yield str(self._seen[number].value)

    def apart(self, token: T) -> bool:
        """Whether a space stands behind a word."""
        next(self(), None)
        return bool(self._seen) and self._seen[0].start_pos != token.end_pos


def begins_arguments(texts: Iterable[str]) -> bool:
    """Whether a list in parentheses comes next, of more than one item."""
    depth = 0
    for text in texts:
        depth += (text in CLOSERS) - (text in CLOSERS.values())
        if depth <= 0:
            return False
        if text == "," and depth == 1:
            return True
    return False


def continues(text: str, head: str | None) -> bool:
    """Whether a line that starts with `text` goes on with the statement that `head` started."""
    return text in CONTINUES_BEFORE or (text == "where" and head == "input")


def takes_away(column: int, begins: int, apart: bool, head: str | None) -> bool:
    """Whether a line that starts with `-` in a column goes on with the statement that `head`
    started in the column `begins`; `apart`: a space stands behind the sign."""
    return apart and column > begins and head not in WITHOUT_VALUE


def _track(stack: list[tuple[str, int]], text: str, at: int) -> None:
    if text in CLOSERS:
        stack.append((text, at))
        if len(stack) > limits.NESTING:
            raise LayoutError("nesting", at, None)
    elif text in (")", "]", "}"):
        if not stack:
            raise LayoutError("unopened", at, None)
        if CLOSERS[stack[-1][0]] != text:
            raise LayoutError("mismatched", at, stack[-1])
        stack.pop()

"""Where a newline ends a statement, and whether brackets match.

Runs between lexer and parser. A newline counts except inside ( ) and [ ], at the edges of
{ } and of the file, after an operator that wants a right-hand side, and before a line that
starts with `->`, `else`, `as`, `{` or, in an `input`, `where`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from convdsl.syntax import limits


class Token(Protocol):
    """What layout needs of a lexer's token."""

    type: str
    value: str
    start_pos: int | None


T = TypeVar("T", bound=Token)

NEWLINE = "_NL"
CLOSERS = {"(": ")", "[": "]", "{": "}"}
OPERATORS = ("->", "+", "-", "*", "/", "//", "%", "**", "=", "==", "!=", "<", "<=", ">", ">=")
CONTINUES_AFTER = frozenset(
    [*OPERATORS, ",", ":", ".", "and", "or", "not", "else", "{", "as", "where"]
)
CONTINUES_BEFORE = frozenset(["->", "else", "as", "{", "}"])


class BracketError(Exception):
    """A bracket without its partner, or too many open ones."""

    def __init__(self, kind: str, at: int, opener: tuple[str, int] | None) -> None:
        super().__init__(kind)
        self.kind = kind  # "unopened", "mismatched", "unclosed" or "nesting"
        self.at = at
        self.opener = opener


def arrange(tokens: Iterable[T]) -> Iterator[T]:
    """Drop the newlines that end nothing; raise BracketError where brackets do not match."""
    stack: list[tuple[str, int]] = []
    pending: T | None = None
    previous: str | None = None
    head: str | None = None  # first word of the current statement
    for token in tokens:
        if token.type == NEWLINE:
            if previous not in CONTINUES_AFTER and not (stack and stack[-1][0] != "{"):
                pending = token
            continue
        text = str(token.value)
        if pending is not None:
            if previous is not None and not continues(text, head):
                yield pending
                head = None
            pending = None
        if head is None or previous == "{":
            head = text
        _track(stack, text, token.start_pos or 0)
        yield token
        previous = text if token.type != "STRING" else '"'
    if stack:
        raise BracketError("unclosed", stack[-1][1], stack[-1])


def continues(text: str, head: str | None) -> bool:
    """Whether a line that starts with `text` goes on with the statement that `head` started."""
    return text in CONTINUES_BEFORE or (text == "where" and head == "input")


def _track(stack: list[tuple[str, int]], text: str, at: int) -> None:
    if text in CLOSERS:
        stack.append((text, at))
        if len(stack) > limits.NESTING:
            raise BracketError("nesting", at, None)
    elif text in (")", "]", "}"):
        if not stack:
            raise BracketError("unopened", at, None)
        if CLOSERS[stack[-1][0]] != text:
            raise BracketError("mismatched", at, stack[-1])
        stack.pop()

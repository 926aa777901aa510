"""The place that somebody writes at: what stands before it, and what of that is still open."""

from __future__ import annotations

import re
from dataclasses import dataclass

from convdsl.editing.words import Word, words
from convdsl.syntax.layout import CLOSERS
from convdsl.syntax.parser import ITEM

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class CallAround:
    """A call whose brackets are open at a place."""

    callee: str
    start: int  # of the callee
    keywords: tuple[str, ...]  # given before
    position: int  # arguments before
    keyword: str | None  # of the argument that is being written


class Place:
    """What stands before an offset: the words, and what of them is still open."""

    def __init__(self, text: str, offset: int) -> None:
        starts = [match.start() for match in ITEM.finditer(text, 0, offset)]
        self.item = starts[-1] if starts else 0
        self.offset = offset
        self.before = text[:offset]
        partial = _NAME.search(self.before)
        self.start = partial.start() if partial else offset
        head = text[self.item : self.start]
        self.words = [
            Word(w.start + self.item, w.end + self.item, w.kind, w.text) for w in words(head)
        ]
        self.head = head

    @property
    def in_comment(self) -> bool:
        line = self.before.rpartition("\n")[2]
        return any(word.kind == "comment" for word in words(line))

    @property
    def string(self) -> int | None:
        """Where the string that is open begins."""
        line = self.before.rfind("\n") + 1
        open = (w for w in words(self.before[line:]) if w.kind == "other" and w.text == '"')
        first = next(open, None)
        return None if first is None else line + first.start

    def last(self, count: int = 1) -> str:
        """The text of a word before the place; nothing where there are not so many."""
        plain = [word for word in self.words if word.kind != "comment"]
        return plain[-count].text if len(plain) >= count else ""

    def first(self) -> str:
        """The first word of the item."""
        return next((word.text for word in self.words if word.kind != "comment"), "")

    @property
    def is_open(self) -> bool:
        """Whether the braces of the item are still open."""
        signs = [word.text for word in self.words if word.text in ("{", "}")]
        return signs.count("{") > signs.count("}")

    def call(self, *, around_lists: bool = False) -> CallAround | None:
        """The innermost call that is open; one may stand around brackets that are none."""
        depth = 0
        plain = [word for word in self.words if word.kind != "comment"]
        commas: list[int] = []
        for index in range(len(plain) - 1, -1, -1):
            text = plain[index].text
            if text in CLOSERS.values():
                depth += 1
            elif text in CLOSERS:
                depth -= 1
                if depth >= 0:
                    continue
                if text == "(" and index and plain[index - 1].kind == "name":
                    return _call(plain, index, commas)
                if text == "{" or not around_lists:
                    return None
                depth, commas = 0, []
            elif text == "," and depth == 0:
                commas.insert(0, index)
        return None


def _call(plain: list[Word], opener: int, commas: list[int]) -> CallAround:
    """The call whose bracket is a word, with the commas between its arguments."""
    starts = [opener + 1, *(comma + 1 for comma in commas)]

    def keyword(at: int) -> str | None:
        named = at + 1 < len(plain) and plain[at + 1].text == "="
        return plain[at].text if named else None

    given = [keyword(at) for at in starts]
    callee = plain[opener - 1]
    return CallAround(
        callee.text,
        callee.start,
        tuple(name for name in given[:-1] if name is not None),
        sum(name is None for name in given[:-1]),
        given[-1],
    )

"""`convdsl fmt`: one layout for all sources, comments and line breaks kept.

Works on the words of the text, so that the tree cannot change. Spaces between words follow
rules; where a space is due and the author put several to align columns, they stay. Lines are
never joined or broken: they are indented by what they continue.

    a statement in braces      four more than the statement or stage that opened the brace
    a line starting with ->    under the first -> where one word stands before that, else under
                               the start of the chain
    a line starting with else  under its `if`
    inside ( ) and [ ]         under what follows the bracket, or four more if nothing follows
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from convdsl.diagnostics import SourceFile
from convdsl.syntax.layout import CLOSERS, CONTINUES_AFTER, begins_arguments, takes_away
from convdsl.syntax.layout import continues as goes_on
from convdsl.syntax.parser import parse
from convdsl.syntax.words import KEYWORDS

INDENT = 4
WORD = re.compile(
    r'"(?:\\.|[^"\\\n])*"|#[^\n]*|[0-9]+(?:x[0-9]+)+|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?'
    r"|[0-9]+(?:_[0-9]+)*|[A-Za-z_][A-Za-z0-9_]*|->|\*\*|//|[=!<>]=|[^\s]"
)
NUMBER = re.compile(
    r"[0-9]+(?:x[0-9]+)+(?![A-Za-z0-9_])|[0-9]+(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)"
    r"|[0-9]+(?:_[0-9]+)*"
)


@dataclass(slots=True)
class Word:
    """A token of the text and the spaces before it on its line."""

    text: str
    spaces: int
    column: int = 0  # in the text as it is written
    unary: bool = False  # a sign before its operand
    relation: bool = False  # `in` or `where` between its two sides
    called: bool = False  # `where`, the operator, at the start of a line

    @property
    def comment(self) -> bool:
        return self.text.startswith("#")

    @property
    def operand(self) -> bool:
        """Whether a value ends here."""
        first = self.text[0]
        if self.text in (")", "]", "}"):
            return True
        if first.isalpha() or first == "_":
            if self.text in ("in", "where"):
                return not self.relation
            return self.text not in KEYWORDS or self.text in ("true", "false")
        return first.isdigit() or first == '"'


@dataclass(slots=True)
class Level:
    """Inside one open bracket, or the file."""

    bracket: str
    body: int  # indentation of the lines inside
    close: int  # indentation of a line that starts with the closing bracket
    start: int = 0  # indentation of the current statement
    begins: int | None = None  # and its column in the text as it is written
    arrow: int | None = None  # column of the lines of the current chain that start with ->
    chain: int | None = None  # column where the current chain starts
    words: int = 0  # of the current chain, up to its first ->; a.b counts as one
    stage: int | None = None  # column behind the last -> of the current line
    conditional: int | None = None  # column of the last `if`
    head: str | None = None  # first word of the current statement
    header: tuple[int | None, int | None] | None = None  # stage and arrow where a `for` began


@dataclass(slots=True)
class Layout:
    """The state of laying out a text line by line."""

    levels: list[Level] = field(default_factory=lambda: [Level("", 0, 0)])
    lines: list[str] = field(default_factory=list[str])
    previous: Word | None = None  # last word but comments

    def add(self, words: list[Word]) -> None:
        """Lay out one line."""
        if not words:
            if self.lines and self.lines[-1] and not self._just_opened():
                self.lines.append("")
            return
        indent = self._indentation(words[0])
        if words[0].text in ("}", ")", "]") and self.lines and not self.lines[-1]:
            self.lines.pop()
        line = " " * indent
        for level in self.levels:
            level.stage = None
        for index, word in enumerate(words):
            before = words[index - 1] if index else None
            if before is not None:
                line += " " * _gap(before, word)
                if before.text == "->":
                    self.levels[-1].stage = len(line)
            self._track(
                word, len(line), indent, index == len(words) - 1 or words[index + 1].comment
            )
            line += _tidy(word)
            if not word.comment:
                self.previous = word
        self.lines.append(line)

    def before(self) -> Word | None:
        """The word before the next line's first; None where that line starts a statement."""
        goes_on = self.levels[-1].bracket in ("(", "[")
        return self.previous if goes_on else None

    def takes_away(self, words: list[Word]) -> bool:
        """Whether a line that starts with `-` goes on with the statement before it."""
        level = self.levels[-1]
        if self.previous is None or not self.previous.operand or level.begins is None:
            return False
        apart = len(words) > 1 and words[1].spaces > 0
        return takes_away(words[0].column, level.begins, apart, level.head)

    def _just_opened(self) -> bool:
        last = self.previous
        return (
            last is not None
            and last.text in CLOSERS
            and self.lines[-1].rstrip().endswith(last.text)
        )

    def _indentation(self, first: Word) -> int:
        level = self.levels[-1]
        text = first.text
        if text in ("}", ")", "]"):
            return level.close
        if level.bracket in ("(", "["):
            if text == "->" and level.arrow is not None:
                return level.arrow
            return level.body
        continues = self.previous is not None and self.previous.text in CONTINUES_AFTER - {"{"}
        on = goes_on(text, level.head) or (text == "-" and not first.unary)
        if not continues and (first.called or not on):
            if not first.comment:
                level.start, level.head, level.begins = level.body, text, first.column
                level.arrow = level.chain = None
            return level.body
        if text == "->":
            return level.arrow if level.arrow is not None else level.chain or level.start
        if text == "else" and level.conditional is not None:
            return level.conditional
        if text == "{":
            return level.start
        return level.start + INDENT

    def _track(self, word: Word, column: int, indent: int, last: bool) -> None:
        level = self.levels[-1]
        text = word.text
        if text == "{" and level.header is not None:  # what its list went through is over
            (level.stage, level.arrow), level.header = level.header, None
        base = indent if level.stage is None else level.stage
        if level.begins is None and not word.comment:  # behind the brace, in its line
            level.begins, level.head, level.start = word.column, text, column
        if text in ("=", ":") or (text == "," and level.bracket in ("(", "[")):
            level.chain = level.arrow = None
        elif text not in ("->", ")", "]", "}") and not word.comment:
            if level.chain is None:
                level.chain, level.words = column, 0
            dotted = text == "." or (self.previous is not None and self.previous.text == ".")
            level.words += not dotted
        if text in CLOSERS:
            hanging = last or text == "{"
            self.levels.append(
                Level(text, base + INDENT if hanging else column + 1, base if hanging else column)
            )
        elif text in (")", "]", "}"):
            if len(self.levels) > 1:
                self.levels.pop()
        elif text == "->" and level.arrow is None and level.chain is not None:
            level.arrow = column if level.words == 1 else level.chain
        elif text == "if" and not (self.previous and self.previous.text == "else"):
            level.conditional = column
        elif text == "for":
            level.header = level.stage, level.arrow


def _gap(before: Word, word: Word) -> int:
    """Spaces between two words of a line."""
    if word.comment:
        return max(2, word.spaces)
    return max(1, word.spaces) if _spaced(before, word) else 0


def _spaced(before: Word, word: Word) -> bool:
    """Whether a space stands between two words of a line."""
    left, right = before.text, word.text
    if left in ("(", "[", ".") or right in (")", "]", ",", ".", ":"):
        return False
    if before.unary:
        return False
    if right in ("(", "["):
        called = before.operand and not before.text.startswith('"') and left != "}"
        return not called
    return True


def _tidy(word: Word) -> str:
    if word.comment and len(word.text) > 1 and word.text[1] not in " !#":
        return f"# {word.text[1:].rstrip()}"
    return word.text.rstrip()


def _words(line: str, previous: Word | None) -> list[Word]:
    """The words of a line; tells signs from operators and `in` from `in`."""
    words: list[Word] = []
    at = 0
    last = previous
    while at < len(line):
        rest = line[at:].lstrip(" \t\r\f\ufeff")
        spaces, at = len(line) - at - len(rest), len(line) - len(rest)
        if not rest:
            break
        found = NUMBER.match(line, at) or WORD.match(line, at)
        assert found is not None
        word = Word(found.group(), spaces, at)
        after_value = last is not None and last.operand
        word.unary = word.text in ("+", "-") and not after_value
        if word.text == ":":  # of a part of a list, a[1:-1], it stands close
            texts = [other.text for other in words]
            word.unary = texts.count("[") > texts.count("]")
        word.relation = word.text in ("in", "where") and after_value
        words.append(word)
        at = found.end()
        if not word.comment:
            last = word
    return words


def _texts(words: list[Word], lines: list[str]) -> Iterator[str]:
    """The texts of some words, and of the lines after them."""
    yield from (word.text for word in words)
    for line in lines:
        yield from (word.text for word in _words(line, None) if not word.comment)


def format_source(text: str, path: str = "<text>") -> str:
    """The text in the one layout. Raises CompileError where it does not parse."""
    parse(SourceFile(path, text))
    return laid_out(text)


def laid_out(text: str) -> str:
    """The same of a text that parses."""
    layout = Layout()
    rest = text.split("\n")
    for number, line in enumerate(rest):
        words = _words(line, layout.before())
        if words and words[0].text == "where":
            words[0].called = begins_arguments(_texts(words[1:], rest[number + 1 :]))
        if words and words[0].text == "+" and layout.previous is not None:
            words[0].unary = not layout.previous.operand  # the line goes on with the one before
        if words and words[0].text == "-" and layout.takes_away(words):
            words[0].unary = False
        layout.add(words)
    lines = layout.lines
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n" if lines else ""

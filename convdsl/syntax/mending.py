"""How to mend a text where a token cannot stand: rules, in order, and the first that knows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection

from convdsl.diagnostics import SourceFile
from convdsl.spelling import nearest
from convdsl.syntax.characters import IN_A_TYPE, OPEN_SIZE
from convdsl.syntax.declaring import declared
from convdsl.syntax.layout import BETWEEN
from convdsl.syntax.slips import STOP, slip
from convdsl.syntax.words import FOREIGN, KEYWORDS, VALUE
from convdsl.tensor.records import record


@record
class Place:
    """A token that cannot stand where it stands, and what is around it."""

    source: SourceFile
    start: int
    found: str
    kind: str
    accepts: Collection[str]
    before: str  # the text before it, without blanks at its end
    word: str  # the last of it, if it ends with one
    begun: str  # the word that its line, or its body, begins with


def help_of(
    source: SourceFile, start: int, found: str, kind: str, accepts: Collection[str]
) -> tuple[str, ...]:
    """What to write where a token cannot stand: the first rule that knows decides."""
    before = source.text[:start].rstrip(" \t")
    previous = re.search(r"(\w+)\Z", before)
    head = re.search(r"(?:^|[{\n])[ \t]*(\w+)[^{\n]*\Z", before)
    word, begun = previous.group(1) if previous else "", head.group(1) if head else ""
    place = Place(source, start, found, kind, accepts, before, word, begun)
    return next(((help,) for rule in _RULES if (help := rule(place)) is not None), ())


def _slipped(at: Place) -> str | None:
    """What a line would be with one sign more, less, or another."""
    text = at.source.text
    begins, ends = text.rfind("\n", 0, at.start) + 1, text.find("\n", at.start)
    rest = text[at.start : ends if ends >= 0 else len(text)]
    return slip(f"{text[begins : at.start]}{STOP}{rest}", at.accepts)


_STATEMENTS = ("if", "for", "repeat", "let", "assert")
"""What stands in bodies, and is no setting."""


def _begins_otherwise(at: Place) -> str | None:
    """What begins, or is named, in another way here."""
    if at.found != at.found.lower() and at.found.lower() in KEYWORDS:
        return f"write `{at.found.lower()}`: words of the language have no capitals"
    if at.kind == "NAME" and "LBRACE" in at.accepts and _LOOSE.search(at.before):
        return "bodies stand in braces: `{ ... }`"
    if re.search(r"\boutput\s*\Z", at.before) and "STRING" in at.accepts:
        return "an output has a name: `output NAME = ...`, or `... -> output NAME`"
    text = at.source.text
    after = text[at.start + len(at.found) :]
    help = declared(text[: at.start], at.found, at.kind, at.accepts, after)
    if (
        at.found in _STATEMENTS
        and {"NAME", "RBRACE"}.issubset(at.accepts)
        and "LET" not in at.accepts
    ):
        return "`train` holds settings, NAME = value, and no conditions: --set train.NAME=VALUE"
    if help is None and at.found in KEYWORDS and "NAME" in at.accepts and at.kind != "IN":
        return f"`{at.found}` is a word of the language: choose another name"
    return help


def _binds_otherwise(at: Place) -> str | None:
    """What is bound, or taken as a parameter, in another way here."""
    if at.found == "=" and _PART_OF.search(at.before):
        return "nothing changes in place: bind a name to what is new, `y = ...`, `let a = [...]`"
    if at.found == "{" and re.search(r"\blet\s+\w+\s*=\s*\Z", at.before):
        return "there are lists, [a, b], and names: one `let` for each"
    if at.found == "*" and re.search(r"\b(?:block|model)\s+\w+\([^)]*\Z", at.before):
        return "of any number: one parameter that is a list, called unit(widths = [32, 64])"
    if at.found == "=" and at.word in KEYWORDS and at.word == at.begun:
        return f"`{at.word}` is a word of the language: choose another name"
    if at.found == "=" and "COMPARE" in at.accepts:
        return "`=` binds a name at the start of a statement; write `==` to compare"
    return None


def _of_another_language(at: Place) -> str | None:
    """What stands here for a word that another language has."""
    for foreign in (at.found, at.word, at.begun):
        if foreign in FOREIGN:
            return _result(at.before) if foreign == "return" else FOREIGN[foreign]
    return None


def _numbers_and_texts(at: Place) -> str | None:
    """What is said of numbers, sizes and texts that are written otherwise."""
    if at.kind == "STRING" and at.word == "f":
        return 'every text interpolates: "layer{i}"'
    if at.kind == "FLOAT" and at.word == "convdsl":
        return "the version is a whole number: convdsl 1"
    glued = _glued(at.source.text[: at.start], at.word, at.found) if at.kind == "NAME" else None
    if glued is None and at.word.isdigit() and at.found.startswith("x"):
        return "a size is one word (`3x3`); for computed sizes write a list: [k, k]"
    return glued


def _runs_together(at: Place) -> str | None:
    """What is missing between a word and what follows it."""
    if at.kind in VALUE and "COMMA" in at.accepts and {"RPAR", "RSQB"} & set(at.accepts):
        return "separate them with a comma"
    if "ARROW" not in at.accepts:
        return None
    near = nearest(at.word, KEYWORDS) if len(at.word) > 3 else None
    if near is not None and (at.begun == at.word or near in ("output", "repeat", "scope", "else")):
        return f"did you mean `{near}`?"
    if at.kind in ("INT", "FLOAT", "SIZE") and at.word[:1].isalpha():
        return f"arguments stand in brackets: `{at.word}({at.found}, ...)`"
    if at.kind == "NAME" and _BOUND.match(at.source.text, at.start + len(at.found)):
        return f"`{at.found} = ...` begins on a line of its own"
    if at.kind == "NAME" and at.before and at.before[-1] != "\n":
        return f"`->` hands a tensor on: `{at.word or '...'} -> {at.found}`"
    return None


def _result(before: str) -> str:
    """What stands for `return` here."""
    begun = re.findall(r"^[ \t]*(block|model)\b", before, re.MULTILINE)
    if begun and begun[-1] == "model":
        return "a model puts out what it gives: `output NAME`, or `... -> output NAME`"
    return FOREIGN["return"]


_NUMBER = re.compile(r"(?<![\w.])\d[\d_]*(?:\.\d+)?\Z")
_THOUSANDS = {"k": 1, "K": 1, "M": 2, "G": 3, "B": 3}


def _glued(before: str, word: str, found: str) -> str | None:
    """What to write for letters right behind the digits of a number."""
    number = _NUMBER.search(before)
    if number is None:
        return None
    digits = number[0]
    with contextlib.suppress(ValueError):
        return f"numbers are decimal: {int(digits + found, 0)}"
    if found in _THOUSANDS and digits.isdigit():
        return f"numbers have no units: {digits}{'_000' * _THOUSANDS[found]}"
    if found in ("e", "E"):
        return f"an exponent has digits: {digits}e3"
    if found.startswith("x") and digits.isdigit():
        return None  # a size
    if word == digits and found.lower() in ("f", "d", "l", "u", "j"):
        return f"numbers have no suffix: {digits}"
    return f"a name does not begin with a digit, and numbers have no units: {digits}"


_BOUND = re.compile(r"[ \t]*=(?!=)")
_LOOSE = re.compile(r"\b(repeat|for|if|else)\b[^{}\n]*\Z")


def _odd_sign(after: str, found: str, before: str, accepts: Collection[str]) -> str | None:
    """What to write for signs, or numbers, that are written otherwise elsewhere."""
    if after.startswith("=>") and not _TAKES_NAMES.search(before):
        return "write `->`"
    if after.startswith("=>"):
        return "a chain that begins with no tensor is a layer: `let f = conv(8, 3x3) -> relu`"
    if IN_A_TYPE.search(before) and found in ("*", ":", ".", ",", "]") and before[-1:] in "[,-":
        return OPEN_SIZE
    if found in (">", "->", "=") and (before[-1:], found) in _ARROWS_APART:
        return _ARROWS_APART[before[-1:], found]
    doubled = re.search(r"(\w+)[ \t]*(\+\+|--)\Z", before)
    if doubled:
        return f"nothing is counted up in place: write `{doubled[1]} {doubled[2][0]} 1`"
    ends = re.search(r"(\w+)\.\Z", before)
    if found == "." and ends:
        return f"write range({ends[1]}, ...)"
    if ends and ends[1].isdigit():
        return f"write `{ends[1]}.0`"
    part = re.match(r"\.\d+", after)
    if part and not before[-1:].isalnum():
        return f"write `0{part[0]}`"
    if found == "%" and "LET" in accepts:
        return "a comment starts with `#`"
    return None


_TAKES_NAMES = re.compile(r"(?:[=(,]|\b(?:return|let))\s*(?:\w+|\([\w\s,]*\))\s*\Z")
"""The names of a function without one, before its `=>`."""

_ARROWS_APART = {
    (">", ">"): "write `->`",
    ("=", ">"): "write `->`",
    ("-", ">"): "write `->`",
    ("-", "->"): "write `->`",
    ("<", ">"): "write `!=`",
    ("=", "="): "write `==`",
}
"""What stands before a sign, and the sign."""


def _of_python(found: str, before: str, accepts: Collection[str]) -> str | None:
    """What to write for an `if`, a `for` or a sum behind a value."""
    if "ARROW" not in accepts:
        return None
    if found == "if":
        return "write `if condition { a } else { b }`"
    if found == "for":
        return "write `for x in list { ... }`, which gives the list of what its rounds give"
    if found == "+" and re.search(r"\bas\s+\"[^\"\n]*\"\Z", before):
        return 'every text interpolates: as "layer{i}"'
    return None


def _sign(found: str, before: str, word: str, accepts: Collection[str], begun: str) -> str | None:
    """What to write for a sign that means something elsewhere, in a line that begins with a
    word."""
    if found == ":":
        if "LBRACE" in accepts:
            return "bodies stand in braces: `{ ... }`"
        if "EQUAL" in accepts and begun in ("block", "model"):
            return f"parameters have no types: `{word}`, or with a default `{word} = ...`"
        if "EQUAL" in accepts:
            return f"write `{word} = ...`"
        if before.endswith("["):
            return _PART
    if found == "," and begun == "input" and "RBRACE" in accepts:
        return "inputs of their own types have lines of their own"
    if found == "," and re.search(r"->\s*output\s+\w+\s*\Z", before):
        return "several are bound, then put out: `a, b = ...`, `output a, b`"
    if found == "," and "RBRACE" in accepts and "ARROW" not in accepts:
        return "statements are told apart by newlines"
    if found == "," and "RPAR" in accepts and "COMMA" not in accepts:
        return "a size is `3x3`, a list `[3, 3]`; round brackets group"
    if found == "=" and before[-1:] in ("+", "-", "*", "/"):
        name = re.search(r"(\w+)\s*\W+\Z", before)
        return f"write `{name.group(1)} = {name.group(1)} {before[-1]} ...`" if name else None
    return None


_PART = "a part of a tensor is slice(axes, start, stop)"
_PART_OF = re.compile(r"(?:^|[\n{])[ \t]*\w+(?:\[[^\]\n]*\]|\.\w+)\s*\Z")


def _goes_on_with_nothing(at: Place) -> str | None:
    """What to write for a line that starts with an operator, below one that no value ends."""
    if at.found not in (*BETWEEN, "-") or not at.before.endswith("\n"):
        return None
    above = at.before.rstrip().rpartition("\n")[2].partition("#")[0].strip()
    rest = at.source.text[at.start + len(at.found) :].partition("\n")[0].partition("#")[0].strip()
    if above.startswith("input ") and at.found in ("and", "or"):
        return f"what holds of an input's sizes begins with `where`: `where {rest}`"
    if above.startswith("input "):
        return f"no value is above, to which `{at.found}` could belong: leave it out"
    if ends := _PUT_OUT.search(above):
        return f"an output ends its chain: `{at.found} {rest}` stands before `-> output {ends[1]}`"
    return None


_PUT_OUT = re.compile(r"\boutput (\S+)\Z")

_RULES: tuple[Callable[[Place], str | None], ...] = (
    _goes_on_with_nothing,
    lambda at: _odd_sign(at.source.text[at.start :], at.found, at.before, at.accepts),
    _slipped,
    _begins_otherwise,
    _binds_otherwise,
    _of_another_language,
    lambda at: _sign(at.found, at.before, at.word, at.accepts, at.begun),
    lambda at: _of_python(at.found, at.before, at.accepts),
    _numbers_and_texts,
    _runs_together,
)
"""In order: what knows more of the text around a token comes before what knows less."""

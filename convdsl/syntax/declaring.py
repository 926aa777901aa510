"""Helps for statements that begin in another way than their kind does: inputs without a type,
outputs without a name, files without quotes."""

from __future__ import annotations

import re
from collections.abc import Collection

from convdsl.spelling import nearest
from convdsl.syntax.layout import NEWLINE
from convdsl.syntax.words import FOREIGN, ITEMS

_SOME_TYPE = "f32[N, 3, 224, 224]"
_TYPE = re.compile(r"(?:bf|[fiu])\d+|bool")


def declared(
    before: str, found: str, kind: str, accepts: Collection[str], after: str
) -> str | None:
    """What a statement says that begins in another way than its kind does here."""
    line = before[before.rstrip().rfind("\n") + 1 :].strip()
    output = re.fullmatch(r'output (\w+(?:, ?\w+)*|"[^"]*")', line)
    if output:
        return _put_out(output[1], found, kind, after)
    untyped = _untyped(line, found, kind, after)
    if untyped is not None:
        return untyped
    if found == "input" and (match := re.fullmatch(r"(?:let )?(\w+) =", line)):
        return f"an input is declared: `input {match[1]}: f32[N, 3, 224, 224]`"
    if line == "use" and kind == "NAME":
        return f'a file stands in quotes: `use "{found}.cnn": NAME`'
    if kind == NEWLINE and re.fullmatch(r'use "[^"\n]*"', line):
        return f"say what of it: `{line}: NAME`"
    if found == "{" and re.search(r"\bscope\Z", line):
        return "a scope has a name: `scope NAME { ... }`"
    if found == "{" and re.search(r"\brepeat\Z", line):
        return "say how often: `repeat COUNT { ... }`"
    if found == "-" and re.fullmatch(r"(?:model|block) \w+", line):
        return "names consist of letters, digits and `_`"
    if re.fullmatch(r"model|block", line) and kind in ("INT", "SIZE"):
        return "a name does not begin with a digit"
    if not line and "MODEL" in accepts and kind == "NAME" and found not in FOREIGN:
        if re.match(r"(?:\([^()\n]*\))?[ \t]*\{", after):
            return f"write `model {found} {{ ... }}`"
        near = nearest(found, ITEMS | {"let", "default", "preprocess", "labels"})
        return f"did you mean `{near}`?" if near else None
    return None


def _untyped(line: str, found: str, kind: str, after: str) -> str | None:
    """What an input is called, or of what type it is, where a line says sizes alone, or neither."""
    match = re.fullmatch(r"input(?: (\w+))? ?(?:(:) ?)?", line)
    if match is None or kind == "NAME" or (match[2] and not match[1]):
        return None
    if found == "[" and not match[2] and _TYPE.fullmatch(match[1] or ""):
        stated = re.match(r"([^\]\n]*\])", after)
        return f"an input has a name: `input x: {match[1]}[{stated[1] if stated else '...]'}`"
    named = match[1] or "x"
    if found == ":" and not match[1]:
        stated = re.match(r" *(\w+\[[^\]\n]*\])", after)
        return f"an input has a name: `input x: {stated[1] if stated else _SOME_TYPE}`"
    sizes = found.split("x") if kind == "SIZE" else []
    stated = f"f32[N, {', '.join(sizes)}]" if sizes else _SOME_TYPE
    return f"an input has a type: `input {named}: {stated}`"


def _put_out(named: str, found: str, kind: str, after: str) -> str | None:
    """How what begins with `output` is said."""
    rest = (found + after.split("\n", 1)[0].split("#", 1)[0]).strip()
    if kind in ("RBRACE", NEWLINE):
        return f"say what it is: `output {named} = ...`"
    if found == "as" and (name := re.fullmatch(r"as (\w+)", rest)):
        return f"write `output {name[1]} = {named}`"
    if found == "=":
        return f"bind them, and put them out: `{named} {rest}`, then `output {named}`"
    if kind == "COLON":
        return "an output says no type: its shape follows from what it is"
    if kind in ("ARROW", "SIGN", "FACTOR", "POWER", "LPAR", "DOT", "LSQB"):
        last = named.rsplit(", ", 1)[-1]
        return f"a result has a name: `output NAME = {last}{'' if found in '(.[' else ' '}{rest}`"
    return None

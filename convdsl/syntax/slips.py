"""What to write for lines that would be right in another language, or nearly are here: by the line,
and where in it the parser stopped."""

from __future__ import annotations

import re
from collections.abc import Collection

STOP = "\0"
"""Stands in a line where the parser stopped."""

_LAYERS = "layers follow each other: `{{ a -> b }}`"
_DEFAULT = "say of which layer: `default conv({1} = ...)`"
_TYPE = r"(?:(?:bf|[fiu])\d+|bool|float\w*|\w*[Tt]ensor)"

RULES = tuple(
    (re.compile(rule), help)
    for rule, help in (
        # expressions
        (r"\b[A-Za-z_]\w*\[[^\[\]]*(?::[^\[\]]*\0,|\0,[^\[\]]*:)",
         "a part of a tensor is slice(axes, start, stop)"),
        (r"^[ ]*(?:let +)?([A-Za-z_]\w*(?:, *[A-Za-z_]\w*)+) *=[^=].*\0,",
         "several values stand in a list: `{1} = [..., ...]`"),
        (r"^[ ]*\0-(?!>) ?(\S.*)",
         "a line goes on with a `-` that is further in, and a space: `    - {1}`"),
        (r"^[ ]*\0(/) ?\S",
         "leave the `{1}` at the end of the line before, or put the whole in brackets"),
        (r"\b(?:block|model) [^{}\n]*\{ .*\S  ?\0[a-z]", "each statement has a line of its own"),
        (r"\b([A-Za-z_]\w*)\[[^\[\]]*\0,", "arguments stand in round brackets: `{1}(...)`"),
        (r"(?<![\w.])(\d{1,2})%[ ]*\0[),]", "a share is a number: {percent}"),
        (r"(?<![\w.])(\d+)\0X(\d+)\b", "sizes are written with a small x: {1}x{2}"),
        (r"\b(?:upsample|resize|interpolate|repeat)\b[^,]*?(\d+)\0x(?!\w)",
         "a factor has no sign behind it: {1}"),
        (r"(?<![\w.])(\d+)\0x(?!\w)[ ]*[),]", "a size has a number for each axis: {1}x{1}"),
        (r"(?<![\w.x])x\0(\d+)\b", "a size has a number for each axis: {1}x{1}"),
        (r"\brepeat (\w+) \0([A-Za-z_]\w*)\b",
         "bodies stand in braces: `repeat {1} {{ ... }}`"),
        (r"(?<![\w.])(\d[\d.]*) \0([A-Za-z_]\w*)\(",
         "a factor stands before `*`: `{1} * {2}(...)`"),
        (r"^[ ]*\0->", "a chain begins with a tensor: `x -> ...`, in a block `in -> ...`"),
        (r"= \0output\b", "an output is where a chain ends: `... -> output NAME`"),
        (r"\bas \0output\b", "an output has a name: `... -> output NAME`"),
        (r"->[ ]*\0\{",
         "round brackets group: `(x -> ...) + y`; a body has a word: `scope NAME {{ ... }}`"),
        (r"\bseq[ ]*(?:\w+[ ]*)?\0\(", _LAYERS),
        (r"\bseq\b[^{}]*\{[^{}]*\0,", _LAYERS),
        (r"[(,=] ?(\d+) \0x (\d+) ?[,)]",
         "a size is one word (`{1}x{2}`); for computed sizes write a list: [k, k]"),
        (r"[(,=] ?([A-Za-z_]\w*|\d+) \0x ([A-Za-z_]\w*|\d+) ?[,)]",
         "a size is one word (`3x3`); for computed sizes write a list: [{1}, {2}]"),
        (r"\bfor (\w+) \0(?::?=|from\b)", "write `for {1} in range(1, 4) {{ ... }}`"),
        (r"\bfor \0\( ?(?:int |let |var )?(\w+)", "write `for {1} in range(4) {{ ... }}`"),
        (r"\bfor ([\w, ]+) in ([^\[\](){}]*)\0,([^\[\](){}]*)",
         "several stand in a list: `for {1} in [{2}, {3}] {{ ... }}`"),
        (r"(\bas|\bscope|\bseq) (\w+)\0((?:\.\w+)+)",
         'a name with dots stands in quotes: {1} "{2}{3}"'),
        (r"(\bas|\bscope|\bseq|\boutput) (\w+)\0(\[[^\[\]\"]*\])",
         'a text says what a variable holds: {1} "{{{2}{3}}}"'),
        (r"\bas \"[^\"]*\" \0%", 'every text interpolates: as "layer{{i}}"'),
        (r"\0is (?:not )?\S", "write `==`, or `!=` for unequal"),
        (r"([\w.]+) \0not in (\[[^\]]*\]|\w+)", "`not` stands first: `not {1} in {2}`"),
        (r"->? ?([A-Za-z_]\w*) as (\w+|\"[^\"]*\") ?\0\(", "a name stands last: `{1}(...) as {2}`"),
        (r"\b(scope|seq) \0as (\w+)", "write `{1} {2} {{ ... }}`"),
        (r"\bscope ?\0\( ?\"?(\w+)", "write `scope {1} {{ ... }}`"),
        (r"\b(scope \w+|seq|seq \w+) \0(?!->|\{)[A-Za-z_]",
         "bodies stand in braces: `{1} {{ ... }}`"),
        (r"^[ ]*((?:\w+, ?)+\w+) \0-> ?([A-Za-z_]\w*)",
         "several flow in from a list: `[{1}] -> {2}`"),
        (r"->[ ]*\0->", "one `->` is enough: leave this one out"),
        (r"\bif\b.* \0then\b", "leave `then` out: bodies stand in braces"),
        (r"\} ?else ?\{.*\} \0else\b",
         "only the last is without a condition: `else if condition {{ ... }}`"),
        (r"\b(as|output) \0(\d\w*)", 'a name begins with a letter, or stands in quotes: {1} "{2}"'),
        # statements
        (r"^[ ]*assert ?\(.*\0,", 'no brackets stand around both: `assert condition, "..."`'),
        (r"^[ ]*default (?:relu\w*|[gs]e?i?lu|bn|\w*norm|\w*act\w*|conv\w*) \0= ?([A-Za-z_]\w*) *$",
         "attributes have defaults; a layer is handed over: `block NAME(act = {1})`"),
        (r"^[ ]*let (\w+)\0:", "values have no types: `let {1} = ...`"),
        (r"^[ ]*(?:val|int|float|double|auto|string|bool|mut|static|my|local) \0(\w+)[ ]*=",
         "write `let {1} = ...`"),
        (r"^[ ]*assert\b.*\S[ ]*\0\"",
         'a comma stands before the message: `assert condition, "..."`'),
        (r"^[ ]*default (\w+)\0\.(\w+)[ ]*=[ ]*([^\s#]+)", "write `default {1}({2} = {3})`"),
        (r"^[ ]*default (\w+)[ ]*\0=", _DEFAULT),
        (r"^[ ]*default (\w+)[ ]*\0[{:]", "write `default {1}(...)`"),
        (r"^[ ]*labels[ ]*[:=]?[ ]*\0",
         'class names stand in a file, one a line: `labels "names.txt"`'),
        (r"^[ ]*preprocess (\w+)[ ]*\0\(", "say of which input: `preprocess NAME: {1}(...)`"),
        (r"^[ ]*preprocess (\w+)[ ]*\0=", "write `preprocess {1}: ...`"),
        (r"^[ ]*use\b.*:[ ]*\0\*", 'say the names: `use "...": NAME, NAME`'),
        (r"^[ ]*convdsl[ ]*\0[ ]*$", "say the version: convdsl 1"),
        (r"^[ ]*augment[ ]*=.*\0,", "steps follow each other: `a -> b`"),
        (r"^[ ]*(?:metrics|freeze|groups)[ ]*=[ ]*([^\[\]]*)\0,[ ]*([^\[\]#]+)$",
         "several stand in a list: [{1}, {2}]"),
        # inputs
        (r"^[ ]*input\b.*:[^\]]*\[[^\]]*\0= ?(\d+)",
         "a size is a number, or the name of an open one: {1}"),
        (r"^[ ]*input\b.*\] ?where\b[^=]*\0(?!=)(?!.*[^=]=[^=])\S",
         "write H % 32 == 0, H >= 32, H <= 512 or H == W, joined by `and`"),
        (r"^[ ]*input\b.*\][ ]*\0=", "an input has no default: it is given when the model runs"),
        (r"^[ ]*input\b.*\]\0\[", "all sizes stand in one pair of brackets: f32[N, 3, 224, 224]"),
        (rf"^[ ]*input\b.*:[ ]*({_TYPE})[ ]*\0[<(]([^<>()]*)[>)]",
         "sizes stand in square brackets: {1}[{2}]"),
        (rf"^[ ]*input (\w+) \0({_TYPE}\[.*\])", "write `input {1}: {2}`"),
        (rf"^[ ]*input\b.*:[ ]*({_TYPE})[ ]*\0[ ]*(?:#.*)?$",
         "a type has sizes: {1}[N, 3, 224, 224]"),
        (r"^[ ]*input (\w+(?:, ?\w+)+): ?\0(\d+(?:x\d+)+)",
         "an input has a type: `input {1}: f32[N, {sizes}]`"),
        # definitions
        (r"^[ ]*model \w+\([^)]*\0input\b",
         "inputs stand in its body: `input x: f32[N, 3, 224, 224]`"),
        (rf"^[ ]*model \w+\([^)]*?(\w+)\0: ?({_TYPE}\[[^\]]*\])",
         "inputs stand in its body: `input {1}: {2}`"),
        (r"^(?:\w[\w-]*\0:|\0[\[{])",
         "no keys and dashes: `model NAME {{ ... }}`, its layers in chains, `x -> conv(8, 3x3)`"),
        (r"^[ ]*model\b[^{]*\0->", "outputs are named inside: `... -> output NAME`"),
        (r"^[ ]*(block|model) (\w+)[ ]*(?:\([^()]*\))?[ ]*\0(?:->|=)",
         "its body stands in braces: `{1} {2}(...) {{ ... }}`"),
        (r"^[ ]*(?:block|model) \w+(?:\([^()]*\))? ?\0(?:extends|inherits|from|is)\b *(\w*)",
         "a model is a layer of another: `x -> {1} -> ...`"),
        (r"^[ ]*(block|model) \0\"(\w+)\"", "a name stands without quotes: `{1} {2}`"),
        (r"^[ ]*block \w+\([^()]*\0in\b", "`in` is there without being said: leave it out"),
    )
)  # fmt: skip

_LONGEST = 1_000
"""Characters of a line that somebody wrote: rules take the square of them."""

_IN_A_MODEL = re.compile(r"^\0(?:input|output|\w+ ?(?:->|=(?!=)))")


def slip(line: str, accepts: Collection[str]) -> str | None:
    """What to write for a line with STOP in it, where what is accepted there is known."""
    if len(line) > _LONGEST:
        return None
    if "MODEL" in accepts and _IN_A_MODEL.match(line):
        return "it stands inside of a model: `model NAME { ... }`"
    for rule, help in RULES:
        match = rule.search(line)
        if match is not None:
            return _filled(help, match)
    return None


def _filled(help: str, match: re.Match[str]) -> str:
    """The help with what the line says."""
    groups = [group or "" for group in (match[0], *match.groups())]
    percent = f"{int(groups[1]) / 100}" if groups[1:] and groups[1].isdecimal() else ""
    sizes = groups[2].replace("x", ", ") if len(groups) > 2 else ""
    return help.format(*(group.strip() for group in groups), percent=percent, sizes=sizes)

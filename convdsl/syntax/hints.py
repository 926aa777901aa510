"""What to say about text that does not parse: found, expected, and how to mend it.

Token names of the grammar never reach a message: every terminal has its plain wording here.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from collections.abc import Collection

from convdsl.diagnostics import Diagnostic, Label, SourceFile
from convdsl.spelling import nearest
from convdsl.syntax import limits
from convdsl.syntax.layout import NEWLINE, LayoutError
from convdsl.syntax.slips import STOP, slip

KEYWORDS = frozenset(
    [
        "convdsl",
        "use",
        "as",
        "default",
        "block",
        "model",
        "train",
        "let",
        "assert",
        "input",
        "output",
        "preprocess",
        "labels",
        "in",
        "if",
        "else",
        "for",
        "repeat",
        "seq",
        "scope",
        "and",
        "or",
        "not",
        "true",
        "false",
    ]
)

ITEMS = frozenset({"use", "block", "model", "train"})
_BRACKETS = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|[(){}\[\]]')

WORDING = {
    "$END": "the end of the file",
    NEWLINE: "the end of the line",
    "NAME": "a name",
    "STRING": "a string",
    "INT": "a number",
    "ARROW": "`->`",
}
VALUE = {"NAME", "STRING", "INT", "FLOAT", "SIZE", "LPAR", "LSQB"}
STARTS_VALUE = {"SIGN", "NOT", "TRUE", "FALSE", "IN", "IF", "FOR", "REPEAT", "SEQ", "SCOPE"}
OPERATORS = {"SIGN", "FACTOR", "COMPARE", "OR", "AND", "IN"}
PUNCTUATION = {
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "EQUAL": "`=`",
    "DOT": "`.`",
}

_BLOCK = "write `block NAME(...) { ... }`"
_CHOICE = "write `if condition { ... } else if condition { ... } else { ... }`"
_USE = 'write `use "file.cnn": name`'
FOREIGN = {
    "def": _BLOCK,
    "class": f"{_BLOCK}, of a whole network `model NAME {{ ... }}`",
    "function": _BLOCK,
    "fn": _BLOCK,
    "module": _BLOCK,
    "network": "write `model NAME(...) { ... }`",
    "import": _USE,
    "from": _USE,
    "include": _USE,
    "var": "write `let NAME = ...`",
    "const": "write `let NAME = ...`",
    "return": "the last value of a block, or `out = ...`, is its result",
    "elif": "write `else if`",
    "elseif": "write `else if`",
    "lambda": _BLOCK,
    "while": "write `repeat COUNT { ... }` or `for NAME in LIST { ... }`",
    "switch": _CHOICE,
    "match": _CHOICE,
    "case": _CHOICE,
}
"""Words of other languages, and what stands for them here."""

_QUOTES = 'strings stand in plain quotes: "..."'
LOOKALIKES = {
    "'": "strings stand in double quotes",
    "`": "strings stand in double quotes",
    "^": "powers are written `**`",
    "~": "write `not`",
    "\\": "a line goes on inside brackets, and after `->` or an operator",
    "·": "write `*`",
    "⋅": "write `*`",
    "÷": "write `/`",
    "≤": "write `<=`",
    "≥": "write `>=`",
    "≠": "write `!=`",
    "⇒": "write `->`",
    "⟶": "write `->`",
    "‘": _QUOTES,
    "’": _QUOTES,
    "&": "write `and`",
    "|": "layers are joined with `->`; of two conditions, write `or`",
    "!": "write `not`, or `!=` for unequal",
    ";": "a newline ends a statement",
    "@": "matrices are multiplied by `matmul(a, b)`; layers are joined with `->`",
    "?": "write `if condition { a } else { b }`",
    "×": "write sizes with the letter x: 3x3",
    "→": "write `->`",
    "–": "write `-`",
    "−": "write `-`",
    "—": "write `-`",
    "“": _QUOTES,
    "”": _QUOTES,
    "„": _QUOTES,
    "«": _QUOTES,
    "»": _QUOTES,
}


_IN_A_TYPE = re.compile(r":\s*\w+\[[^\]\n]*\Z")
_OPEN_SIZE = "a size that stays open has a name: N"


def bad_character(source: SourceFile, at: int) -> Diagnostic:
    """A character that starts no token."""
    character = source.text[at : at + 1]
    label = (Label(source.span(at, at + 1)),)
    if character == '"':
        end = source.text.find("\n", at)
        label = (Label(source.span(at, end if end >= 0 else len(source.text))),)
        return Diagnostic(
            "E0104", "a string that does not end on its line", label, help=('close it with `"`',)
        )
    if source.text.startswith("||", at):
        return _foreign_sign(source, at, "||", "write `or`")
    shown = character if character.isprintable() else f"U+{ord(character):04X}"
    help = _meant(character)
    if character == "?" and _IN_A_TYPE.search(source.text[:at]):
        help = (_OPEN_SIZE,)
    return Diagnostic("E0103", f"`{shown}` is not part of the language", label, help=help)


def _meant(character: str) -> tuple[str, ...]:
    """What a character stands for: what it is taken for, or the plain one of its kind."""
    if character in LOOKALIKES:
        return (LOOKALIKES[character],)
    plain = unicodedata.normalize("NFKC", character)
    if plain.isspace():
        return ("write a plain space",)
    if unicodedata.category(character) in ("Cf", "Cc"):
        return ("it cannot be seen: delete it",)
    if len(plain) == 1 and plain.isascii():
        return (f"write `{plain}`",)
    return ()


def _foreign_sign(source: SourceFile, at: int, sign: str, help: str) -> Diagnostic:
    label = (Label(source.span(at, at + len(sign))),)
    return Diagnostic("E0103", f"`{sign}` is not part of the language", label, help=(help,))


def bad_bracket(source: SourceFile, offset: int, error: LayoutError) -> Diagnostic:
    """What is wrong with a bracket: too deep, never opened, never closed, or closed by another."""
    at = offset + error.at
    found = source.text[at]
    here = Label(source.span(at, at + 1))
    if error.kind == "nesting":
        return Diagnostic("E0802", f"brackets nest deeper than {limits.NESTING}", (here,))
    if error.kind == "words":
        return Diagnostic("E0801", f"the source is longer than {limits.WORDS:,} words", (here,))
    if error.kind == "unopened":
        return Diagnostic("E0102", f"`{found}` closes nothing", (here,))
    if error.kind == "unclosed":
        return Diagnostic("E0102", f"`{found}` is never closed", (here,))
    assert error.opener is not None
    text, opened = error.opener
    opener = Label(source.span(offset + opened, offset + opened + 1), "opened here")
    return Diagnostic("E0102", f"`{found}` does not close `{text}`", (here, opener))


def unexpected(
    source: SourceFile, start: int, end: int, kind: str, accepts: Collection[str]
) -> Diagnostic:
    """A token that cannot stand where it stands."""
    comment = _comment(source, start)
    if comment is not None:
        return comment
    found = source.text[start:end]
    opened = _still_open(source.text[:start])
    if found in ITEMS and "INPUT" in accepts and opened and not _still_open(source.text):
        here = (Label(source.span(start, end)),)
        help = (f"a `{found}` stands beside blocks and models, not inside",)
        return Diagnostic("E0101", f"unexpected `{found}`", here, help=help)
    if found in ITEMS and "INPUT" in accepts and opened:
        opener = Label(source.span(opened[0], opened[0] + 1))
        here = Label(source.span(start, end), f"still open when this `{found}` starts")
        return Diagnostic("E0102", "`{` is never closed", (opener, here))
    expected = _expected(accepts)
    labels = [Label(source.span(start, end), f"expected {expected}" if expected else "")]
    if opened and source.text[opened[-1]] != "{" and "\n" in source.text[opened[-1] : start]:
        bracket = source.text[opened[-1]]
        labels.append(Label(source.span(opened[-1], opened[-1] + 1), f"`{bracket}` is still open"))
    ended = kind in ("$END", NEWLINE)
    shown = WORDING[kind].removeprefix("the ") if ended else f"`{found}`"
    help = _help(source, start, found, kind, accepts)
    return Diagnostic("E0101", f"unexpected {shown}", tuple(labels), help=help)


_COMMENTS = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|//|/\*|--|<!--')


def _comment(source: SourceFile, start: int) -> Diagnostic | None:
    """A comment of another language, in which, or at whose sign, the parser stopped."""
    line_start = source.text.rfind("\n", 0, start) + 1
    line_end = source.text.find("\n", start)
    line = source.text[line_start : line_end if line_end >= 0 else len(source.text)]
    for match in _COMMENTS.finditer(line):
        sign, at = match.group(), line_start + match.start()
        if at > start:
            return None
        if sign[0] in '"#':
            continue
        stands_alone = not line[: match.start()].strip()
        two_words = re.match(r"\s*[^\W\d]\w*[ \t]+\w", line[match.end() :])
        if sign in ("/*", "<!--") or stands_alone or two_words:
            here = (Label(source.span(at, at + len(sign))),)
            text = f"`{sign}` starts no comment"
            return Diagnostic("E0101", text, here, help=("a comment starts with `#`",))
    return None


def _still_open(text: str) -> list[int]:
    """Where the brackets stand that are open at the end of the text, outermost first."""
    stack: list[int] = []
    for match in _BRACKETS.finditer(text):
        if match.group() in ("(", "[", "{"):
            stack.append(match.start())
        elif match.group() in (")", "]", "}") and stack:
            stack.pop()
    return stack


def _expected(accepts: Collection[str]) -> str:
    """`a value`, `a name or ")"`: at most four alternatives, operators summed up."""
    rest = set(accepts)
    words: list[str] = []
    if rest >= VALUE:
        words.append("a value")
        rest -= VALUE | STARTS_VALUE
    if len(rest & OPERATORS) >= 3:
        words.append("an operator")
        rest -= OPERATORS | {"LPAR", "DOT", "LSQB", "AS", "POWER"}
    statement = {"LET", "ASSERT", "INPUT", "OUTPUT"}
    if rest >= statement:
        words = ["a statement"]
        rest = rest & {"RBRACE"}
    if rest >= {"BLOCK", "MODEL"}:
        words = ["`block`, `model`, `use`, `let`, `default` or `train`"]
        rest.clear()
    for name in sorted(rest):
        wording = WORDING.get(name) or PUNCTUATION.get(name)
        if wording is None and name.lower() in KEYWORDS:
            wording = f"`{name.lower()}`"
        if wording is not None:
            words.append(wording)
    words = words[:4]
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _help(
    source: SourceFile, start: int, found: str, kind: str, accepts: Collection[str]
) -> tuple[str, ...]:
    before = source.text[:start].rstrip(" \t")
    odd = _odd_sign(source.text[start:], found, before, accepts)
    if odd is not None:
        return (odd,)
    begins, ends = source.text.rfind("\n", 0, start) + 1, source.text.find("\n", start)
    rest = source.text[start : ends if ends >= 0 else len(source.text)]
    slipped = slip(f"{source.text[begins:start]}{STOP}{rest}", accepts)
    if slipped is not None:
        return (slipped,)
    if found != found.lower() and found.lower() in KEYWORDS:
        return (f"write `{found.lower()}`: words of the language have no capitals",)
    if kind == "NAME" and "LBRACE" in accepts and _LOOSE.search(before):
        return ("bodies stand in braces: `{ ... }`",)
    if re.search(r"\boutput\s*\Z", before) and "STRING" in accepts:
        return ("an output has a name: `output NAME = ...`, or `... -> output NAME`",)
    declared = _declared(
        source.text[:start], found, kind, accepts, source.text[start + len(found) :]
    )
    if declared is not None:
        return (declared,)
    if found in KEYWORDS and "NAME" in accepts and kind != "IN":
        return (f"`{found}` is a word of the language: choose another name",)
    if found == "=" and _PART_OF.search(before):
        return ("nothing changes in place: bind a name to what is new, `y = ...`, `let a = [...]`",)
    if found == "{" and re.search(r"\blet\s+\w+\s*=\s*\Z", before):
        return ("there are lists, [a, b], and names: one `let` for each",)
    if found == "*" and re.search(r"\b(?:block|model)\s+\w+\([^)]*\Z", before):
        return ("of any number: one parameter that is a list, called unit(widths = [32, 64])",)
    if found == "=" and "COMPARE" in accepts:
        return ("`=` binds a name at the start of a statement; write `==` to compare",)
    previous = re.search(r"(\w+)\Z", before)
    word = previous.group(1) if previous else ""
    head = re.search(r"(?:^|[{\n])[ \t]*(\w+)[^{\n]*\Z", before)
    begun = head.group(1) if head else ""
    for foreign in (found, word, begun):
        if foreign in FOREIGN:
            return (_result(before) if foreign == "return" else FOREIGN[foreign],)
    sign = _sign(found, before, word, accepts, begun) or _of_python(found, before, accepts)
    if sign is not None:
        return (sign,)
    if kind == "STRING" and word == "f":
        return ('every text interpolates: "layer{i}"',)
    if kind == "FLOAT" and word == "convdsl":
        return ("the version is a whole number: convdsl 1",)
    glued = _glued(source.text[:start], word, found) if kind == "NAME" else None
    if glued is not None:
        return (glued,)
    if word.isdigit() and found.startswith("x"):
        return ("a size is one word (`3x3`); for computed sizes write a list: [k, k]",)
    if kind in VALUE and "COMMA" in accepts and {"RPAR", "RSQB"} & set(accepts):
        return ("separate them with a comma",)
    near = nearest(word, KEYWORDS) if "ARROW" in accepts and len(word) > 3 else None
    if near is not None and (begun == word or near in ("output", "repeat", "scope", "else")):
        return (f"did you mean `{near}`?",)
    if kind in ("INT", "FLOAT", "SIZE") and "ARROW" in accepts and word[:1].isalpha():
        return (f"arguments stand in brackets: `{word}({found}, ...)`",)
    if kind == "NAME" and "ARROW" in accepts and _BOUND.match(source.text, start + len(found)):
        return (f"`{found} = ...` begins on a line of its own",)
    if kind == "NAME" and "ARROW" in accepts and before and before[-1] != "\n":
        return (f"`->` hands a tensor on: `{word or '...'} -> {found}`",)
    return ()


def _result(before: str) -> str:
    """What stands for `return` here."""
    begun = re.findall(r"^[ \t]*(block|model)\b", before, re.MULTILINE)
    if begun and begun[-1] == "model":
        return "a model puts out what it gives: `output NAME`, or `... -> output NAME`"
    return FOREIGN["return"]


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


def _declared(
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


_SOME_TYPE = "f32[N, 3, 224, 224]"
_TYPE = re.compile(r"(?:bf|[fiu])\d+|bool")

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
    if _IN_A_TYPE.search(before) and found in ("*", ":", ".", ",", "]") and before[-1:] in "[,-":
        return _OPEN_SIZE
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

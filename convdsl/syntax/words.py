"""Words: those of the language, how tokens are worded for people, and those of other languages.

Token names of the grammar never reach a message: every terminal has its plain wording here.
"""

from __future__ import annotations

from convdsl.syntax.layout import NEWLINE

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

"""What a word of a text can be."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path


class Kind(enum.Enum):
    """Of symbols; the value is what people call them."""

    BLOCK = "block"
    MODEL = "model"
    VALUE = "value"  # `let` of a file
    ALIAS = "import"  # `use ... as`
    PARAMETER = "parameter"
    INPUT = "input"
    NAME = "name"  # bound inside a block or model
    SIZE = "open size"
    OUTPUT = "output"  # read below where it is put out
    OPERATOR = "operator"
    ATTRIBUTE = "attribute"
    FUNCTION = "function"
    CONSTANT = "number"
    WORD = "word"
    PART = "part of a tensor"
    DTYPE = "element type"
    SETTING = "training setting"
    TECHNIQUE = "technique"
    STEP = "preprocessing step"
    UNKNOWN = "unknown name"


OF_FILES = frozenset({Kind.BLOCK, Kind.MODEL, Kind.VALUE, Kind.ALIAS})
LOCAL = frozenset({Kind.PARAMETER, Kind.INPUT, Kind.NAME, Kind.SIZE})
RENAMED = OF_FILES | LOCAL
"""What a text defines, and so may call otherwise."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """Something with a name. `owner` is the block or model that it belongs to; of attributes the
    operator, of arguments the technique. `place` is the file that defines it."""

    kind: Kind
    id: str
    owner: str = ""
    place: Path | None = None


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A word of a text that means a symbol; `defines` where it is bound there."""

    start: int
    end: int
    symbol: Symbol
    defines: bool = False

"""What a technique is, and what the values of its arguments may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast


class Needed:
    """The default of what has to be said; the only instance is NEEDED."""

    def __repr__(self) -> str:
        return "NEEDED"


NEEDED = Needed()


@dataclass(frozen=True, slots=True)
class Takes:
    """What a value may be: in words, as in "`lr` takes ...", and by test; what is `made` of it.

    choices: texts that may stand without quotes.
    """

    words: str
    fits: Callable[[Any], bool]
    made: Callable[[Any], Any] = lambda value: value
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument, or one setting. `default` None: none."""

    name: str
    takes: Takes
    default: Any
    doc: str


@dataclass(frozen=True, slots=True)
class Technique:
    """One of several that a setting chooses from; arguments by position in this order.

    objects: what is wrong with arguments together, as in "`sgd` ...", or None.
    """

    name: str
    doc: str
    arguments: tuple[Argument, ...] = ()
    objects: Callable[[Mapping[str, Any]], str | None] = lambda arguments: None

    @property
    def takes(self) -> dict[str, Argument]:
        """Its arguments by name."""
        return {argument.name: argument for argument in self.arguments}

    def complete(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """All arguments, those that are not given by their defaults. Raises KeyError for unknown
        ones, and for ones that are needed and not given."""
        unknown = arguments.keys() - self.takes.keys()
        if unknown or self.lacks(arguments):
            raise KeyError(*sorted(unknown), *self.lacks(arguments))
        return {a.name: arguments.get(a.name, a.default) for a in self.arguments}

    def lacks(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """What is needed and not given."""
        needed = (a.name for a in self.arguments if isinstance(a.default, Needed))
        return tuple(name for name in needed if name not in arguments)


Table: TypeAlias = Mapping[str, Technique]


# What values may be


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _items(value: Any) -> list[Any]:
    """The items of a list; none of what is no list."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def _all(value: Any, fits: Callable[[Any], bool]) -> bool:
    """Whether a value is a list, not empty, of what fits."""
    return bool(_items(value)) and all(map(fits, _items(value)))


def _is_size(value: Any) -> bool:
    return (_is_count(value) and value > 0) or (isinstance(value, tuple) and 0 not in value)


def _is_range(value: Any) -> bool:
    ends = _items(value)
    return len(ends) == 2 and all(map(_is_number, ends)) and 0 < ends[0] <= ends[1]


def one_of(*choices: str) -> Takes:
    """One of several words."""
    listed = " or ".join(f"`{choice}`" for choice in choices)
    return Takes(listed, lambda value: isinstance(value, str) and value in choices, choices=choices)


NUMBER = Takes("a number", _is_number)
WHOLE = Takes("a whole number, negative too", lambda v: isinstance(v, int) and _is_number(v))
RATE = Takes("a number of 0 or more", lambda v: _is_number(v) and v >= 0)
POSITIVE = Takes("a number above 0", lambda v: _is_number(v) and v > 0)
FRACTION = Takes("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1)
SHARE = Takes("a number from 0 up to, not including, 1", lambda v: _is_number(v) and 0 <= v < 1)
COUNT = Takes("a whole number", _is_count)
MANY = Takes("a whole number of 1 or more", lambda v: _is_count(v) and v > 0)
FLAG = Takes("true or false", lambda v: isinstance(v, bool))
COUNTS = Takes("a list of whole numbers", lambda v: isinstance(v, list) and _all(v, _is_count))
SIZE = Takes("a size, or a whole number", _is_size)
RANGE = Takes("a list of two numbers, [least, greatest]", _is_range)
RATES = Takes(
    "a number or a list of numbers of 0 or more", lambda v: RATE.fits(v) or _all(v, RATE.fits)
)
FRACTIONS = Takes(
    "a number or a list of numbers from 0 to 1",
    lambda v: FRACTION.fits(v) or _all(v, FRACTION.fits),
)
PATTERNS = Takes(
    "a name or a list of names",
    lambda v: _is_text(v) or _all(v, _is_text),
    lambda v: tuple(_items(v)) or (v,),
)
CLASS_WEIGHTS = Takes(
    "a list of numbers of 0 or more, or `balanced`",
    lambda v: (_all(v, RATE.fits) and any(v)) or (isinstance(v, str) and v == "balanced"),
    choices=("balanced",),
)


ALPHA = Takes("a number from 0 to 1, or -1", lambda v: FRACTION.fits(v) or v == -1)


def table(*techniques: Technique) -> Table:
    """Techniques by name."""
    return {technique.name: technique for technique in techniques}

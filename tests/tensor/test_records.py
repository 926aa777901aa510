"""Records are the dataclasses that they say they are."""

from __future__ import annotations

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, replace

import pytest

from convdsl.tensor.records import record


@record
class Point:
    """Two numbers and a mark."""

    x: float
    y: float
    mark: tuple[str, ...] = ("none",)


@record
class Other:
    """Fields alike, of another class."""

    x: float
    y: float
    mark: tuple[str, ...] = ("none",)


@dataclass(frozen=True, slots=True)
class Plain:
    """What they are held beside."""

    x: float
    y: float
    mark: tuple[str, ...] = ("none",)


@record
class Nothing:
    """No fields."""


def test_fields_are_set_by_place_by_name_and_by_default() -> None:
    """As of any dataclass."""
    assert [field.name for field in fields(Point(1, 2))] == ["x", "y", "mark"]
    assert repr(Point(1, y=2)) == "Point(x=1, y=2, mark=('none',))"
    assert Point(y=1, x=2, mark=()) == Point(2, 1, ())
    assert replace(Point(1, 2), y=3) == Point(1, 3)
    assert Nothing() == Nothing()
    match Point(1, 2):
        case Point(x, y):
            assert (x, y) == (1, 2)


def test_arguments_are_checked() -> None:
    """None too few, none too many, none that are not there."""
    for arguments, named in (((1,), {}), ((1, 2, (), 3), {}), ((1, 2), {"z": 3})):
        with pytest.raises(TypeError):
            Point(*arguments, **named)  # type: ignore[arg-type]


def test_nobody_changes_one() -> None:
    """Neither a field nor anything that is none; there is no room for more."""
    point = Point(1, 2)
    for name in ("x", "other"):
        with pytest.raises((FrozenInstanceError, TypeError)):
            setattr(point, name, 3)
    with pytest.raises(FrozenInstanceError):
        delattr(point, "x")
    assert not hasattr(point, "__dict__")
    assert point == Point(1, 2)


@pytest.mark.parametrize("y", [2.0, -0.0, math.inf, math.nan])
def test_equal_and_hashed_like_a_dataclass(y: float) -> None:
    """A number that is none is equal to itself as an object alone, as in a tuple."""
    one, same, other = Point(1, y), Point(1, y), Point(1, float(str(y)))
    assert one == one
    assert one == same
    assert hash(one) == hash(same)
    assert (one == other) == (Plain(1, y) == Plain(1, float(str(y))))
    assert hash(one) == hash((1, y, ("none",)))
    assert one != Point(2, y)
    assert one != Point(1, y, ("some",))
    assert one != Other(1, y)
    assert one != (1, y, ("none",))
    assert one != Plain(1, y)


def test_copied_and_pickled() -> None:
    """Both come back equal, and are of the class."""
    point = Point(1, 2, ("a", "b"))
    for made in (copy.copy(point), copy.deepcopy(point), pickle.loads(pickle.dumps(point))):
        assert made == point
        assert type(made) is Point

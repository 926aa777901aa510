"""Indices solved for their axes, against all positions tried one by one."""

from __future__ import annotations

from itertools import count, product
from math import prod

import pytest

from convdsl.kernel.expr import Axis
from convdsl.kernel.preimage import Unsolved, preimage
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.tensor import Dim, dim_max, dim_min, evaluate, floor_div


def axes(*extents: int) -> tuple[Axis, ...]:
    return tuple(Axis(name, extent) for name, extent in zip("pqrs", extents, strict=False))


A, B, C, D = (axis.i for axis in axes(12, 5, 3, 2))


def shift(p: Dim, r: Dim) -> Dim:
    return p * 2 + r * 3 - 4


CASES: dict[str, tuple[tuple[Axis, ...], tuple[int, ...], tuple[Dim, ...]]] = {
    "itself": (axes(12), (12,), (A,)),
    "shifted beyond both ends": (axes(12), (9,), (A - 2,)),
    "backwards by two": (axes(12), (30,), (25 - A * 2,)),
    "a constant": (axes(12), (1,), (0,)),
    "an axis that nothing says": (axes(12, 5), (12,), (A,)),
    "twice the same axis": (axes(12), (12, 12), (A, 11 - A)),
    "windows that overlap": (axes(12, 5), (20,), (A + B - 2,)),
    "windows with strides and dilations": (axes(12, 5), (30,), (shift(A, B),)),
    "windows whose stride and dilation share a factor": (axes(12, 5), (60,), (A * 4 + B * 6 - 3,)),
    "windows apart": (axes(12, 5), (90,), (A * 7 + B,)),
    "windows backwards": (axes(12, 5), (20,), (A + (4 - B),)),
    "digits put together": (axes(12, 5, 3), (180,), ((A * 5 + B) * 3 + C,)),
    "digits taken apart": (axes(12), (3, 2, 2), (A // 4, A // 2 % 2, A % 2)),
    "digits exchanged": (axes(12), (12,), (A % 3 * 4 + A // 3,)),
    "groups": (axes(12, 5), (15,), (A // 4 * 5 + B,)),
    "repeated": (axes(12), (4,), (A % 4,)),
    "three axes in one": (axes(12, 5, 3), (40,), (A * 2 + B + C * 3,)),
    "two windows": (axes(12, 5, 3, 2), (14, 4), (A + C, B - D)),
}

UNSOLVED: dict[str, tuple[tuple[Axis, ...], tuple[int, ...], tuple[Dim, ...]]] = {
    "kept inside": (axes(12), (6,), (dim_min(dim_max(A - 3, 0), 5),)),
    "mirrored": (axes(12), (12,), (dim_max(A - 2, 2 - A),)),
    "uneven windows": (axes(5, 3), (12,), (floor_div(axes(5)[0].i * 12, 5) + Axis("q", 3).i,)),
    "uneven windows that overlap": (
        axes(7, 4),
        (10,),
        (floor_div(axes(7)[0].i * 10, 7) + Axis("q", 4).i,),
    ),
    "repeated unevenly": (axes(12), (5,), (floor_div(A * 5, 12),)),
    "left out unevenly": (axes(5), (12,), (floor_div(axes(5)[0].i * 12, 5),)),
    "between, kept inside": (axes(12), (6,), (dim_max(floor_div(A * 2 - 1, 4), 0),)),
    "the next, kept inside": (axes(12), (6,), (dim_min(floor_div(A * 2 + 3, 4), 5),)),
    "all cut off": (axes(12), (6,), (floor_div(A, 5) + 9,)),
    "falling": (axes(12), (6,), (floor_div(11 - A, 2),)),
    "kept inside, beside windows": (axes(12, 5), (6, 20), (dim_min(A, 5), A + B)),
}


def gathered(
    own: tuple[Axis, ...], shape: tuple[int, ...], index: tuple[Dim, ...], *, search: bool
) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """By position of what is read: who reads it, as solved."""
    numbers = count()
    at = tuple(Axis(f"j{number}", extent) for number, extent in enumerate(shape))
    found = preimage(index, at, own, lambda: f"k{next(numbers)}", search=search)
    readers: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    running = (*at, *found.free)
    for numbers_ in product(*(range(int(str(axis.extent))) for axis in running)):
        here = {axis.name: value for axis, value in zip(running, numbers_, strict=True)}
        tests = [*found.conditions, *(c for w in found.within for c in w.comparisons)]
        if all(
            FUNCTIONS[test.op].meaning(evaluate(test.a, here), evaluate(test.b, here))
            for test in tests
        ):
            reader = tuple(int(evaluate(found.values[axis.name], here)) for axis in own)
            readers.setdefault(numbers_[: len(shape)], []).append(reader)
    return readers


def tried(
    own: tuple[Axis, ...], shape: tuple[int, ...], index: tuple[Dim, ...]
) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    readers: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for reader in product(*(range(int(str(axis.extent))) for axis in own)):
        here = {axis.name: value for axis, value in zip(own, reader, strict=True)}
        place = tuple(int(evaluate(d, here)) for d in index)
        if all(0 <= p < extent for p, extent in zip(place, shape, strict=True)):
            readers.setdefault(place, []).append(reader)
    return readers


def in_order(
    readers: dict[tuple[int, ...], list[tuple[int, ...]]],
) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    return {place: sorted(found) for place, found in readers.items()}


@pytest.mark.parametrize("name", CASES)
def test_every_reader_is_found_once(name: str) -> None:
    own, shape, index = CASES[name]
    assert in_order(gathered(own, shape, index, search=False)) == in_order(tried(own, shape, index))


@pytest.mark.parametrize("name", UNSOLVED)
def test_what_has_no_closed_form_is_searched_where_asked_for(name: str) -> None:
    own, shape, index = UNSOLVED[name]
    with pytest.raises(Unsolved, match="cannot be solved"):
        gathered(own, shape, index, search=False)
    assert in_order(gathered(own, shape, index, search=True)) == in_order(tried(own, shape, index))


@pytest.mark.parametrize(
    ("name", "few"),
    [
        ("kept inside", 6),
        ("uneven windows", 2),
        ("uneven windows that overlap", 4),
        ("repeated unevenly", 3),
        ("left out unevenly", 1),
        ("between, kept inside", 3),
        ("kept inside, beside windows", 7),
    ],
)
def test_where_an_index_never_falls_few_positions_are_tried(name: str, few: int) -> None:
    own, shape, index = UNSOLVED[name]
    numbers = count()
    at = tuple(Axis(f"j{number}", extent) for number, extent in enumerate(shape))
    found = preimage(index, at, own, lambda: f"k{next(numbers)}", search=True)
    assert prod(int(str(axis.extent)) for axis in found.free) <= few

"""Indices as C: the number that the index is, in a type that no part of it leaves."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest

from convdsl.backends.cuda.text import index, index_type
from convdsl.kernel.nodes import LoopVar
from convdsl.tensor import Dim, dim_max, dim_min, evaluate, floor_div

ENDS = {"int": (-(1 << 31), (1 << 31) - 1), "unsigned": (0, (1 << 32) - 1),
        "i64": (-(1 << 63), (1 << 63) - 1), "u64": (0, (1 << 64) - 1)}  # fmt: skip


@dataclass(frozen=True)
class C:
    """A value of a type, which no result may leave."""

    value: int
    type: str

    def __post_init__(self) -> None:
        low, high = ENDS[self.type]
        assert low <= self.value <= high, f"{self.value} is no {self.type}"

    def _with(self, other: C | int, value: int) -> C:
        type = other.type if isinstance(other, C) and other.type.endswith("64") else self.type
        return C(value, type)

    def __add__(self, other: C | int) -> C:
        return self._with(other, self.value + number(other))

    def __sub__(self, other: C | int) -> C:
        return self._with(other, self.value - number(other))

    def __mul__(self, other: C | int) -> C:
        return self._with(other, self.value * number(other))

    def __floordiv__(self, other: int) -> C:
        assert self.value >= 0
        return self._with(other, self.value // other)

    def __neg__(self) -> C:
        return C(-self.value, self.type)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: int) -> C:
        return -self + other


def number(x: C | int) -> int:
    return x.value if isinstance(x, C) else x


def run(text: str, values: dict[str, int]) -> int:
    """What C makes of it."""
    text = re.sub(r"\((int|unsigned|i64|u64)\)\(", r"to_\1(", text)
    text = re.sub(r"\(i64\)(\w+)", r"to_i64(\1)", text)
    text = re.sub(r"\b(\d+)(?:u|ull|ll)\b", r"\1", text).replace(" / ", " // ")
    text = re.sub(r"(least|largest)<\w+>", r"\1", text)
    names: dict[str, object] = {f"{name}_": C(value, "int") for name, value in values.items()}
    names |= {f"to_{type}": lambda x, type=type: C(number(x), type) for type in ENDS}
    names |= {"least": lambda a, b: min(a, b, key=number)}
    names |= {"largest": lambda a, b: max(a, b, key=number)}
    return number(eval(text, {"__builtins__": {}}, names))


def drawn(random: np.random.Generator, counters: list[LoopVar]) -> Dim:
    """A sum of counters, of quotients, and of extrema, of sizes up to those of large tensors."""

    def coefficient() -> int:
        return int(10 ** random.uniform(0, 3)) * int(random.choice([-1, 1, 1]))

    def part(depth: int) -> Dim:
        found: Dim = int(random.integers(-300, 300))
        for counter in counters:
            found = found + counter.i * int(10 ** random.uniform(0, 5))
        if depth and random.random() < 0.4:
            found = found + part(depth - 1)
        match random.integers(4):
            case 0 | 1:
                return floor_div(found, int(10 ** random.uniform(0.1, 4.5)))
            case 2:
                return dim_max(dim_min(found, int(random.integers(1, 5000))), 0)
            case _:
                return found

    total: Dim = 0
    for _ in range(random.integers(1, 4)):
        total = total + part(2) * coefficient()
    return total


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("seed", range(60))
def test_an_index_is_what_it_is_and_no_part_overflows(seed: int) -> None:
    random = np.random.default_rng(seed)
    counters = [LoopVar(name, 0, int(10 ** random.uniform(0, 5))) for name in "xyz"]
    dim = drawn(random, counters)
    text = index(dim)
    for _ in range(30):
        values = {
            c.name: int(random.choice([0, c.highest, random.integers(0, c.highest + 1)]))
            for c in counters
        }
        assert run(text, values) == evaluate(dim, values), (text, values)


def test_a_quotient_is_as_small_as_it_is() -> None:
    """The position of an image in a batch times its size is no larger than the batch: numbers of 64
    bits, whose divisions take many registers, are for what needs them."""
    row = LoopVar("row", 0, 25087).i
    assert index_type(floor_div(row, 12544) * 100352 + floor_div(row, 112) * 224 - 643) == "int"
    assert index_type(floor_div(row * 100_000, 70_001)) == "i64"  # the product on the way
    assert index_type(row * 100_000) == "i64"

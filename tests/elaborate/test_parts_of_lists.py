"""Parts of lists, against Python's, and lists that are a constant bias."""

from __future__ import annotations

import random

import numpy as np
import pytest

import convdsl
from convdsl import CompileError
from convdsl.syntax.format import format_source

PLAIN = (
    "model m({}) {{\n    input x: f32[N, 3, 8, 8]\n    {}\n    x -> conv(2, 1x1) -> output y\n}}\n"
)


def holds(condition: str, parameters: str = "") -> bool:
    try:
        convdsl.parse(PLAIN.format(parameters, f"assert {condition}"))
    except CompileError as error:
        if [d.code for d in error.diagnostics] != ["E0406"]:
            raise
        return False
    return True


@pytest.mark.parametrize("seed", range(4))
def test_as_in_python(seed: int) -> None:
    draw = random.Random(seed)
    conditions: list[str] = []
    for _ in range(40):
        listed = [draw.randrange(9) for _ in range(draw.randrange(6))]
        start, stop = (draw.choice(["", draw.randrange(-7, 8)]) for _ in range(2))
        step = draw.choice(["", ":", f":{draw.choice([-3, -2, -1, 1, 2, 3])}"])
        text = f"{listed}[{start}:{stop}{step}]"
        conditions.append(f"{text} == {eval(text)}")
    assert holds(" and ".join(f"({c})" for c in conditions))
    assert not holds("[1, 2, 3][1:] == [1, 2]")


def test_of_what_is_listed() -> None:
    assert holds("x.shape[2:] == x.space and (3x5x7)[1:] == 5x7")
    assert holds("widths[:-1] == [4, 8] and widths[k:] == [16]", "widths = [4, 8, 16], k = 2")
    assert holds('"c{[7, 8, 9][1:][0]}" == "c8"')


def test_of_tensors() -> None:
    text = """
model m {
    input x: f32[N, 2, 4, 4]
    levels = [x, x + 1, x + 2]
    concat(levels[1:]) -> output y
}
"""
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype("f4")
    found = convdsl.compile(convdsl.parse(text))(x)
    np.testing.assert_array_equal(found, np.concatenate([x + 1, x + 2], 1))


def test_the_one_layout() -> None:
    loose = "let w = a [ 1 : - 1 ]\nlet v = a[: : 2]\nlet u = a[i + 1:]\n"
    assert format_source(loose) == "let w = a[1:-1]\nlet v = a[::2]\nlet u = a[i + 1:]\n"


def test_a_bias_of_numbers_is_a_constant() -> None:
    text = """
model m {
    input x: f32[N, 3]
    x -> linear(2, weight = [[1, 0, 0], [0, 1, 0]], bias = [10, 20]) -> output y
}
"""
    model = convdsl.parse(text)
    assert convdsl.report(model).totals["params"] == 0
    found = convdsl.compile(model)(np.float32([[1, 2, 3]]))
    np.testing.assert_array_equal(found, [[11, 22]])
    with pytest.raises(CompileError, match="3"):
        convdsl.parse(text.replace("[10, 20]", "[10, 20, 30]"))

"""Comparisons that open sizes leave open, and lines that Python would read."""

from __future__ import annotations

import pytest

import convdsl
from convdsl.elaborate import arithmetic
from convdsl.tensor import Dim, symbol

D, H = symbol("D", divisor=8), symbol("H")


@pytest.mark.parametrize(
    ("relation", "left", "right", "help"),
    [
        ("==", 2 * (H // 2), H, "declare it on the input: `where H % 2 == 0`"),
        ("==", 2 * ((D // 8 - 2) // 2) + 2, D // 8, "declare it on the input: `where D % 16 == 0`"),
        ("==", H, 7, "declare it on the input: `where H == 7`, or give the size"),
        ("<", H, 7, "declare it on the input: `where H < 7`, or give the size"),
        ("==", D, H, "declare it on the input: `where D == H`, or give the size"),
        ("<", H // 2, 7, "give the sizes"),
        ("==", D * H, 49, "give the sizes"),
    ],
)
def test_help_is_what_an_input_can_say(relation: str, left: Dim, right: Dim, help: str) -> None:
    with pytest.raises(arithmetic.ValueProblem) as raised:
        arithmetic.compare(relation, left, right)
    assert raised.value.help == (help,)


@pytest.mark.parametrize("said", ["H % 2 == 0", "H < 7", "H == 7"])
def test_inputs_do_say_it(said: str) -> None:
    text = f"model m {{\n input x: f32[N, 2, H, 4] where {said}\n x -> relu -> output y\n}}"
    assert convdsl.parse(text).name == "m"


@pytest.mark.parametrize(
    ("body", "help"),
    [
        ("a, b = relu(x), tanh(x)\na + b -> output y", "`a, b = [..., ...]`"),
        ("let a, b = 1, 2\nx -> output y", "`a, b = [..., ...]`"),
        ("a, b, c = [x, x, x]\na, b = b, a\na + b + c -> output y", "`a, b = [..., ...]`"),
    ],
)
def test_several_values_stand_in_a_list(body: str, help: str) -> None:
    with pytest.raises(convdsl.CompileError, match="several values stand in a list") as raised:
        convdsl.parse(f"model m {{\ninput x: f32[N, 2]\n{body}\n}}")
    assert help in str(raised.value)
    mended = "model m {\ninput x: f32[N, 2]\na, b = [relu(x), tanh(x)]\na + b -> output y\n}"
    assert convdsl.parse(mended).name == "m"


@pytest.mark.parametrize("sign", ["-", "/"])
def test_a_sum_of_losses_goes_on_behind_its_sign(sign: str) -> None:
    head = "model m {\ninput x: f32[N, 2]\nx -> output y\n}\ntrain {\noptimizer = sgd()\n"
    wrong = f"{head}loss = mse(y, a)\n{sign} mse(y, b)\n}}"
    with pytest.raises(convdsl.CompileError) as raised:
        convdsl.parse(wrong)
    said = {"-": "`    - mse(y, b)`", "/": "leave the `/` at the end of the line before"}
    assert said[sign] in str(raised.value)
    convdsl.parse(f"{head}loss = mse(y, a)\n    - mse(y, b)\n}}")
    convdsl.parse(f"{head}loss = mse(y, a)\n    + mse(y, b)\n    * 2\n}}")
    convdsl.parse(f"{head}loss = mse(y, a) +\n    mse(y, b)\n}}")
    convdsl.parse(f"{head}loss = (mse(y, a)\n    + mse(y, b))\n}}")


EQUAL = (
    "model m {{\ninput x: f32[N, 3, H, W] where {}\nx + transpose(x, [0, 1, 3, 2]) -> output y\n}}"
)


@pytest.mark.parametrize("where", ["H == W", "W == H", "W % 32 == 0, H == W", "W == H and W >= 64"])
def test_equal_sizes_are_one(where: str) -> None:
    """Whichever is named first, and whatever else is said of either; bound by either name."""
    text = EQUAL.format(where)
    assert len({*convdsl.parse(text).graph.inputs["x"].type.shape[2:]}) == 1
    for given in ({"H": 64}, {"W": 64}, {"H": 64, "W": 64}):
        assert convdsl.parse(text, **given).graph.inputs["x"].type.shape[2:] == (64, 64)
    with pytest.raises(convdsl.CompileError, match="H = 64 and W = 96 are set"):
        convdsl.parse(text, H=64, W=96)


def test_what_is_said_of_an_equal_size_holds() -> None:
    with pytest.raises(convdsl.CompileError, match="96 or 128 would do"):
        convdsl.parse(EQUAL.format("H == W, W % 32 == 0"), H=100)

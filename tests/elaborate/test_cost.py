"""What elaboration costs, counted in calls of functions: the same on every machine."""

from __future__ import annotations

import contextlib
import cProfile
import functools

import pytest

from convdsl.diagnostics import CompileError
from convdsl.elaborate import limits
from elaborate.sources import INPUT, build

pytestmark = pytest.mark.drawn

SYMBOLIC = "input x: f32[N, 8, H, W]"
UNIT = """
block unit(width, kernel, stride = 1, groups = 1) {
    conv(width, kernel, stride, groups = groups) as "0" -> bn as "1" -> relu6
}
block residual(expansion, width, stride) {
    let hidden = expansion * in.channels
    body = in -> seq conv {
                     in -> if expansion != 1 { unit(hidden, 1x1) }
                        -> unit(hidden, 3x3, stride, groups = hidden)
                        -> conv(width, 1x1) -> bn
                 }
    out  = if stride == 1 and in.channels == width { in + body } else { body }
}
"""


def calls(body: str, declared: str = INPUT) -> int:
    """Calls of functions, Python's and C's, while a model is elaborated, error or not."""
    text = f"{UNIT}\nmodel m {{\n{declared}\n{body}\n}}\n"
    with cProfile.Profile() as profile, contextlib.suppress(CompileError):
        build(text)
    return sum(entry.callcount for entry in profile.getstats())


@functools.cache
def parsing() -> int:
    calls("x -> relu")  # what is done once for all
    return calls("x -> relu")


@pytest.mark.dear
@pytest.mark.parametrize(
    ("round", "operators", "most"),
    [
        ("relu", 1, 150),
        ("conv(8, 3x3) -> bn -> relu", 3, 190),
        ("residual(6, in.channels, 1)", 9, 300),
        ("y = in -> relu\n y * 2 + y", 3, 190),
    ],
)
def test_an_operator_costs_so_many_calls(round: str, operators: int, most: int) -> None:
    """At the limit as anywhere; where the limit is passed, no more than up to there."""
    at = limits.NODES // operators
    for rounds in (at // 4, at + 2):
        done = min(rounds * operators, limits.NODES)
        spent = -parsing() + calls(f"x -> repeat {rounds} {{ {round} }}")
        assert spent < most * done + 20_000, spent / done


@pytest.mark.dear
@pytest.mark.parametrize(
    "round",
    [
        "conv(8, 3x3, stride = 2)",
        "conv(8, 3x3, pad = valid)",
        "conv(8, 3x3, pad = same, stride = 3)",
        "maxpool(3, stride = 2, pad = 1)",
        "resize(2) -> maxpool(2)",
    ],
)
def test_symbolic_sizes_stay_affordable(round: str) -> None:
    """Sizes that grow with every round end at a limit, before they take long."""
    assert calls(f"x -> repeat 4999 {{ {round} }}", SYMBOLIC) < 750 * limits.NODES


@pytest.mark.dear
@pytest.mark.parametrize(
    "body",
    [
        "let b = (i + 1) * 2 + i",
        "let b = [i, i + 1, i + 2][1]",
        "let b = max(i, 5) // 2",
        "let b = x.height // (i + 1)",
        "for j in range(i) { }",
    ],
)
def test_a_step_costs_so_many_calls(body: str) -> None:
    """A loop that computes ends with the steps, each of which is a few calls."""
    spent = calls(f"for i in range(19999) {{ {body} }}\nx -> relu", SYMBOLIC)
    assert spent < 40 * limits.STEPS

"""W0502: blocks bound by their bare names and used more than once have weights of their own."""

from __future__ import annotations

import pytest

from convdsl.diagnostics import SourceFile
from convdsl.elaborate import elaborate
from elaborate.test_mistakes import diagnose

TEXT = """block unit {{ conv(4, 3x3) -> relu }}
block plain {{ relu -> maxpool(2) }}
block sized(width = 4) {{ conv(width, 3x3) }}
model m {{
    input x, z: f32[N, 4, 8, 8]
{}
}}
"""


def text(*lines: str) -> str:
    return TEXT.format("\n".join(f"    {line}" for line in lines))


@pytest.mark.parametrize(
    ("lines", "warned"),
    [
        (("let f = unit", "(x -> f) - (z -> f) -> output y"), True),
        (("let f = unit", "f(x) - f(z) -> output y"), True),
        (("let f = unit", "y = x + z", "repeat 3 { y = y -> f }", "y -> output y"), True),
        (("let f = sized", "(x -> f) - (z -> f) -> output y"), True),
        (("let f = unit()", "(x -> f) - (z -> f) -> output y"), False),
        (("let f = unit", "x + z -> f -> output y"), False),
        (("let f = plain", "(x -> f) - (z -> f) -> output y"), False),
        (("let f = sized", "(x -> f(4)) - (z -> f(width = 4)) -> output y"), False),
        (("let _f = unit", "(x -> _f) - (z -> _f) -> output y"), False),
        (("let f = if x.channels > 2 { unit } else { plain }", "f(x) - f(z) -> output y"), False),
        (("let f = conv(4, 3x3)", "(x -> f) - (z -> f) -> output y"), False),
    ],
)
def test_who_is_warned(lines: tuple[str, ...], warned: bool) -> None:
    found = diagnose(text(*lines))
    assert [d.code for d in found if d.code != "W0201"] == (["W0502"] if warned else [])


def test_it_is_true() -> None:
    """The weights are two sets with the bare name, one with what the help says."""
    uses = "f(x) - f(z) -> output y"
    keys = [
        len(elaborate(SourceFile("m.cnn", text(f"let f = {f}", uses))).graph.states)
        for f in ("unit", "unit()")
    ]
    assert keys == [4, 2]


@pytest.mark.parametrize("line", ["- z", "-z", "    -z"])
@pytest.mark.parametrize("after", ["a -> output y", ""])
def test_a_difference_that_broke_off(line: str, after: str) -> None:
    """A line that begins with `-`, and is not written as between two values, is a statement of its
    own; the last one is a value."""
    lines = ["a = x -> conv(4, 3x3)", line, *([after] if after else [])]
    found = diagnose(text(*lines))
    told = [(d.code, d.span.text[0] if d.span else "") for d in found]
    assert ("E0409", "-") in told if after else told
    assert not after or "`    - z`" in found[0].help[0]


def test_a_difference_over_lines() -> None:
    """It is what brackets say."""
    graphs = [
        elaborate(SourceFile("m.cnn", text(*lines, "a -> output y"))).graph
        for lines in (["a = x", "  - z -> conv(4, 3x3)"], ["a = (x - z) -> conv(4, 3x3)"])
    ]
    first, second = ([node.op.name for node in graph.op_nodes()] for graph in graphs)
    assert first == second == ["sub", "conv"]

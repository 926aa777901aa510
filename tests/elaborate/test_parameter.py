"""Weights that stand on their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import convdsl
from convdsl.interop.cnn_source import source
from convdsl.ir.opdef import Role


def model(body: str) -> convdsl.Model:
    return convdsl.parse(f"convdsl 1\nmodel m {{\ninput x: f32[N, 3, 4]\n{body}\n}}\n")


def test_they_are_named_and_trained() -> None:
    states = model("x * (parameter([3, 1]) as gain) + parameter([4])").graph.states
    assert {k: (str(s.type), s.role) for k, s in states.items()} == {
        "gain.weight": ("f32[3, 1]", Role.PARAMETER),
        "parameter.weight": ("f32[4]", Role.PARAMETER),
    }


def test_bare_ones_are_called_as_their_layers() -> None:
    made = model(
        "y = x -> scope s { in * (parameter([3, 1], bare = true) as gain) }\n"
        "y * parameter([3, 1], bare = true, weight = 2.0) -> output z"
    )
    roles = {key: state.role for key, state in made.graph.states.items()}
    assert roles == {"s.gain": Role.PARAMETER, "parameter": Role.CONSTANT}
    weights = {"s.gain": np.float32([[1], [2], [3]])}
    x = np.ones((2, 3, 4), "f4")
    found = convdsl.compile(made, weights, threads=1)(x)
    np.testing.assert_array_equal(found, x * np.float32([[2], [4], [6]]))
    text, arrays = source(replace(made, weights=weights))
    assert arrays.keys() == weights.keys()
    again = convdsl.compile(convdsl.parse(text), arrays, threads=1)(x)
    np.testing.assert_array_equal(again, found)


def test_rows_of_a_table_begin_unlike_each_other() -> None:
    """Queries, codes, embeddings: gradients of equal rows would be equal, too."""
    made = model(
        "y = x + (parameter([4]) as gain) + (parameter([1, 3, 1]) as shift)\n"
        "z = y + (parameter([1, 3, 4]) as code)\n"
        "z + (parameter([3, 4], weight = zeros) as none) -> output o"
    )
    assert {key: state.init for key, state in made.graph.states.items()} == {
        "gain.weight": "ones",
        "shift.weight": "ones",
        "code.weight": "kaiming_uniform",
        "none.weight": "zeros",
    }
    executable = convdsl.compile(made, "random:0", threads=1)
    code = executable(np.zeros((1, 3, 4), "f4"))[0] - 2
    assert len(np.unique(code)) == 12
    assert np.abs(code).max() <= np.sqrt(6 / 12)
    assert source(made)[0].count("weight = zeros") == 1


def test_tables_of_integers_begin_with_ones() -> None:
    made = model('x -> output y\nparameter([3, 4], dtype = "i64") as t -> output z')
    assert [state.init for state in made.graph.states.values()] == ["ones"]


def test_they_cost_nothing_at_run_time() -> None:
    net = convdsl.compile(
        model("x * (parameter([3, 1]) as gain) -> output y"),
        {"gain.weight": np.float32([[1], [2], [3]])},
        threads=1,
    )
    x = np.ones((2, 3, 4), "f4")
    np.testing.assert_array_equal(net(x), x * np.float32([[1], [2], [3]]))


def test_constants_stand_in_the_text() -> None:
    made = model("x - parameter([3, 1], weight = [[1], [2], [3]]) -> output y")
    (state,) = made.graph.states.values()
    assert state.role is Role.CONSTANT
    x = np.zeros((1, 3, 4), "f4")
    expected = np.broadcast_to(np.float32([[-1], [-2], [-3]]), x.shape)
    np.testing.assert_array_equal(convdsl.compile(made, threads=1)(x), expected)


def test_a_name_is_one_weight() -> None:
    made = model("p = parameter([4])\nx * p + p")
    assert list(made.graph.states) == ["parameter.weight"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x -> parameter([3])", "takes 0 tensors"),
        ("x * parameter([0])", "cannot have the shape"),
        ("x * parameter([N])", "not known|unknown|cannot have the shape"),
        ("x * parameter", "not the operator"),
        ("x * parameter([3, 1], weight = [1, 2])", "does not fill"),
        ("x * parameter([3, 1], dtype = f16)", "dtype"),
    ],
)
def test_mistakes(body: str, message: str) -> None:
    with pytest.raises(convdsl.CompileError, match=message):
        model(body)

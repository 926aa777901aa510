"""Random weights: distribution, independence of other weights, stability."""

from __future__ import annotations

import numpy as np
import pytest

import convdsl
from convdsl import zoo
from convdsl.ir.opdef import Role
from convdsl.weights.initialisers import INITIALISERS, RandomWeights, fan_in


def draw(
    seed: int = 0, name: str = "w", n: int = 100_000, init: str = "kaiming_uniform"
) -> np.ndarray:
    return RandomWeights(seed).make(name, (n // 100, 100), "float64", init, 100)


@pytest.mark.parametrize(
    ("init", "bound"), [("kaiming_uniform", (6 / 100) ** 0.5), ("fan_in_uniform", 0.1)]
)
def test_uniform_within_the_bound_of_the_paper(init: str, bound: float) -> None:
    values = draw(init=init)
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.999 * bound
    assert abs(values.mean()) < 0.01 * bound
    assert abs(values.std() / (bound / 3**0.5) - 1) < 0.01


def test_constants() -> None:
    assert not draw(init="zeros").any()
    assert (draw(init="ones") == 1).all()
    assert (draw(init="quarter") == 0.25).all()


@pytest.mark.dear
def test_every_operator_s_initialiser_exists() -> None:
    wanted = {
        state.init
        for name in zoo.names()
        for state in convdsl.load(name).graph.states.values()
        if state.role is not Role.CONSTANT
    }
    assert wanted <= set(INITIALISERS)
    assert {"kaiming_uniform", "fan_in_uniform", "zeros", "ones"} <= wanted


def test_a_weight_depends_on_seed_and_name_alone() -> None:
    same = RandomWeights(3).make("a", (10,), "float64", "kaiming_uniform", 9)
    np.testing.assert_array_equal(
        same, RandomWeights(3).make("a", (10,), "float64", "kaiming_uniform", 9)
    )
    assert not np.array_equal(draw(0, "a"), draw(0, "b"))
    assert not np.array_equal(draw(0, "a"), draw(1, "a"))
    assert abs(np.corrcoef(draw(0, "a").ravel(), draw(0, "b").ravel())[0, 1]) < 0.01


def test_larger_arrays_continue_smaller_ones_across_chunks() -> None:
    small = RandomWeights(1).make("w", (1 << 20,), "float32", "fan_in_uniform", 4)
    large = RandomWeights(1).make("w", ((1 << 20) + 3,), "float32", "fan_in_uniform", 4)
    np.testing.assert_array_equal(large[: 1 << 20], small)
    assert len(set(large[-3:].tolist())) == 3


def test_float32_is_float64_rounded() -> None:
    wide = RandomWeights(5).make("w", (1000,), "float64", "kaiming_uniform", 3)
    narrow = RandomWeights(5).make("w", (1000,), "float32", "kaiming_uniform", 3)
    np.testing.assert_array_equal(narrow, wide.astype(np.float32))


def test_values_are_the_same_for_ever() -> None:
    values = RandomWeights(42).make("conv1.weight", (4,), "float64", "fan_in_uniform", 1)
    np.testing.assert_array_equal(
        values,
        [-0.41379036819066983, -0.26923774405423706, 0.43483527845496917, -0.978043788784571],
    )


def test_fan_in() -> None:
    assert fan_in((64, 3, 7, 7)) == 147
    assert fan_in((10, 512)) == 512
    assert fan_in((64,)) == 1
    assert fan_in((64, 0, 3, 3)) == 1

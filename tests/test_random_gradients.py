"""Gradients of random graphs: by differences, after all passes, and in machine code.

The first graphs always, the others by `make test-slow` and `make fuzz`.
"""

from __future__ import annotations

import numpy as np
import pytest
from executors import machine_code, run_graph
from gradients import assert_as_exact, check_graph, cotangents_of, floating, gradient_graph
from graphs import evaluate_graph, random_arrays, rewritten
from random_graphs import smooth_graph

pytestmark = pytest.mark.drawn

GRAPHS = 500


def seeds(few: int) -> pytest.MarkDecorator:
    rest = [pytest.mark.slow, pytest.mark.fuzz]
    return pytest.mark.parametrize(
        "seed", [pytest.param(n, marks=[] if n < few else rest) for n in range(GRAPHS)]
    )


@seeds(50)
def test_agree_with_differences(seed: int) -> None:
    graph = smooth_graph(seed)
    check_graph(graph, random_arrays(graph, seed, 0.5), seed, places=2)


@seeds(50)
def test_are_the_same_after_all_passes(seed: int) -> None:
    """Constants that are rounded to f32 on the way bound the tolerance."""
    graph = smooth_graph(seed)
    arrays = random_arrays(graph, seed, 0.5)
    arrays |= {f"d_{name}": dy for name, dy in cotangents_of(graph, seed).items()}
    graph = gradient_graph(graph, floating(graph))
    expected = evaluate_graph(graph, arrays)
    actual = evaluate_graph(rewritten(graph), arrays)
    for name, array in expected.items():
        span = float(np.max(np.abs(array), initial=0.01))
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=2e-6 * span, err_msg=name)


@seeds(10)
def test_agree_in_machine_code(seed: int) -> None:
    """Fused and blocked, in f32."""
    graph = smooth_graph(seed)
    arrays = random_arrays(graph, seed, 0.5)
    arrays |= {f"d_{name}": dy for name, dy in cotangents_of(graph, seed).items()}
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    graph = gradient_graph(graph, floating(graph))
    expected = evaluate_graph(graph, arrays)
    assert_as_exact(run_graph(rewritten(graph), arrays, machine_code), expected, graph, arrays)

"""Computing again instead of keeping: less memory, the same numbers to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from executors import machine_code, run_graph
from gradients import floating, with_gradients
from graphs import Builder, random_arrays, rewritten
from random_graphs import random_graph

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.ir.verify import verify
from convdsl.lowering.lower import lower
from convdsl.passes import PASSES, run, select
from convdsl.passes.recompute import Recompute
from convdsl.schedules.cpu.machine import cpu_machine

pytestmark = pytest.mark.drawn

ALL = select(options={"recompute": {"share": 1.0}})


def deep(layers: int) -> Graph:
    """A chain whose backward pass reads every map of the forward pass."""
    b = Builder()
    x = b.input("x", 2, 8, 16, 16)
    for _ in range(layers):
        x = b("sigmoid", b("conv", b("tanh", x), channels=8, kernel=3))
    graph = b.output(y=x)
    graph, found = with_gradients(graph, floating(graph))
    graph.outputs = {f"d_of_{n}": value for n, value in found.items() if value is not None}
    return graph


def arena(graph: Graph) -> int:
    return lower(graph, cpu_machine(find_target()), "test").program.arena_bytes


def test_a_chain_needs_less_memory() -> None:
    graph = deep(6)
    before, after = run(graph), run(graph, ALL)
    verify(after)
    assert [n for n in after.op_nodes() if n.name.endswith(".again")]
    assert arena(after) < 0.8 * arena(before)


def test_it_is_off_unless_asked_for() -> None:
    assert PASSES[-1] == Recompute(share=0.0)
    graph = run(deep(3))
    assert Recompute().run(graph) == 0


def test_a_budget_is_kept() -> None:
    graph = deep(6)

    def flops(graph: Graph) -> int:
        counts = [node.op.cost(node.call).flops for node in graph.op_nodes()]
        return sum(count for count in counts if isinstance(count, int))

    plain = flops(run(graph))
    for share in (0.001, 0.01, 0.1):
        passes = select(options={"recompute": {"share": share}})
        assert flops(run(graph, passes)) <= (1 + share) * plain


@pytest.mark.dear
@pytest.mark.parametrize("seed", range(12))
def test_the_same_numbers_to_the_bit(seed: int) -> None:
    graph = random_graph(seed)
    graph, found = with_gradients(graph, floating(graph))
    graph.outputs = {f"d_of_{n}": value for n, value in found.items() if value is not None}
    arrays = {n: a.astype(np.float32) for n, a in random_arrays(graph, seed, 0.5).items()}
    after = run(graph, ALL, verify=True)
    expected = run_graph(rewritten(graph), arrays, machine_code)
    actual = run_graph(after, arrays, machine_code)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


def test_what_a_deep_chain_makes_again_it_makes_from_what_was_made_again() -> None:
    """Deep chains go below what one round of choices gives: copies read copies."""
    after = run(deep(8), ALL)
    again = [n for n in after.op_nodes() if ".again" in n.name]
    assert any(".again" in v.node.name for n in again for v in n.inputs.values())

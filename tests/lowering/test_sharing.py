"""Keys that share memory: results over operands, parts in their whole, new states over old."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder, random_arrays, rewritten
from random_graphs import random_graph

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.program import Access, Place, Program
from convdsl.kernel.verify_program import verify_program
from convdsl.lowering import assemble
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine

WIDE = "x86_64-unknown-linux-gnu"


def programmed(graph: Graph) -> Program:
    target = find_target("x86-64-v3", WIDE)
    return lower(rewritten(graph), cpu_machine(target), "net").program


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results lie over operands wherever they can."""
    monkeypatch.setattr(assemble, "choose", lambda apart, over: over)


def updated(program: Program) -> list[tuple[str, Place]]:
    """The last node of each step that updates something, and where."""
    return [
        (step.nodes[-1], argument.place)
        for step in program.steps
        for argument in step.arguments
        if argument.access is Access.UPDATE
    ]


def residual(kernel: int = 3) -> Builder:
    """Two convolutions around which what they read is added."""
    b = Builder()
    h = b("relu", b("conv", b.input("x", 1, 16, 8, 8), channels=16, kernel=1), name="trunk")
    inner = b("relu", b("conv", h, channels=16, kernel=3))
    branch = b("conv", inner, channels=16, kernel=kernel)
    b.output(y=b("avg_pool", b("add", branch, h, name="sum"), kernel="global"))
    return b


def test_a_sum_lies_over_the_residual() -> None:
    """Two values in the arena at a time instead of three."""
    program = programmed(residual().graph)
    assert ("sum", Place.ARENA) in updated(program)
    assert program.arena_bytes == 2 * 16 * 64 * 4


def test_what_is_read_later_is_left_alone(always: None) -> None:
    b = residual()
    h = b.graph.outputs["y"].node.inputs["x"].node.inputs["b"]
    b.output(late=b("max_pool", h, kernel=2))
    assert ("sum", Place.ARENA) not in updated(programmed(b.graph))


def test_where_the_arena_does_not_shrink_kernels_stay_as_they_are() -> None:
    """The fullest moment is another one."""
    b = Builder()
    wide = b("conv", b.input("x", 1, 16, 8, 8), channels=512, kernel=1)
    h = b("relu", b("conv", b("max_pool", wide, kernel=4), channels=16, kernel=1), name="trunk")
    branch = b("conv", b("relu", b("conv", h, channels=16, kernel=3)), channels=16, kernel=3)
    program = programmed(b.output(y=b("add", branch, h)))
    assert updated(program) == []
    assert not any("_over_" in kernel.name for kernel in program.kernels)


def test_neither_inputs_nor_weights_nor_outputs_are_written_over(always: None) -> None:
    b = Builder()
    x = b.input("x", 8)
    first = b("add", x, b.parameter("p", 8), name="first")
    b.output(first=first, second=b("mul", first, first, name="second"))
    assert updated(programmed(b.graph)) == []


def test_an_operand_that_is_read_elsewhere_too_stays(always: None) -> None:
    """A convolution of what is added to it reads its neighbours."""
    b = Builder()
    h = b("relu", b.input("x", 1, 16, 8, 8), name="trunk")
    total = b("add", b("conv", h, channels=16, kernel=3), h, name="sum")
    assert ("sum", Place.ARENA) not in updated(programmed(b.output(y=b("relu6", total))))


def test_parts_of_a_concatenation_stay_where_they_are(always: None) -> None:
    b = Builder()
    h = b("relu", b("conv", b.input("x", 1, 16, 8, 8), channels=16, kernel=1))
    both = b("concat", b("conv", h, channels=16, kernel=3, name="part"), h)
    program = programmed(b.output(y=b("conv", both, channels=16, kernel=1)))
    assert not any("concat" in step.nodes for step in program.steps)
    assert updated(program) == []


def test_a_whole_is_written_over(always: None) -> None:
    """What follows a concatenation in place and is as large as it."""
    b = Builder()
    h = b("conv", b.input("x", 1, 16, 8, 8), channels=16, kernel=1)
    g = b("conv", b("relu", h), channels=16, kernel=3)
    turned = b("sigmoid", b("concat", g, b("conv", g, channels=16, kernel=1)), name="last")
    program = programmed(b.output(y=b("conv", turned, channels=4, kernel=1)))
    assert ("last", Place.ARENA) in updated(program)


def two_states_in_one_kernel() -> Graph:
    """m <- m * mu + g; w <- w - m: a chain of which both leave."""
    b = Builder()
    g, m, w = b.input("g", 3, 40), b.parameter("m", 3, 40), b.parameter("w", 3, 40)
    after = b("add", b("mul", m, b.constant("mu", 0.5)), g, name="momentum")
    b.update(m, after)
    b.update(w, b("sub", w, after, name="step"))
    for node in b.graph.op_nodes():
        node.group = 1
    return b.output()


def test_one_kernel_updates_several_states() -> None:
    graph = two_states_in_one_kernel()
    program = lower(graph, cpu_machine(find_target()), "net").program
    (step,) = program.steps
    kinds = [(a.place, a.slot, a.access) for a in step.arguments if a.place is Place.STATE]
    assert kinds == [(Place.STATE, 0, Access.UPDATE), (Place.STATE, 1, Access.UPDATE)]
    assert program.arena_bytes == 0


def test_whoever_reads_a_whole_waits_for_its_parts() -> None:
    """The new state is made late, after `late` has read the old one, and what follows from it is
    a part of a concatenation in place."""
    b = Builder()
    x, s = b.input("x", 1, 16, 8, 8), b.parameter("s", 1, 16, 8, 8)
    after = b("add", s, x, name="after")
    b.update(s, after)
    first = b("conv", after, channels=16, kernel=1, name="first")
    second = b("conv", x, channels=16, kernel=1, name="second")
    whole = b("concat", first, second)
    b.output(y=b("conv", whole, channels=16, kernel=1, name="reader"))
    b.output(late=b("neg", s, name="late"))
    program = lower(b.graph, cpu_machine(find_target()), "net").program
    names = [step.nodes[-1] for step in program.steps]
    assert "concat1" not in names
    assert names.index("late") < names.index("after") < names.index("first") < names.index("reader")
    assert ("after", Place.STATE) in updated(program)
    verify_program(program)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("seed", range(24))
def test_results_are_the_same_to_the_bit(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything that can lie over an operand doing so: by one thread and by two, and by the
    interpreter where that does not take long."""
    graph = rewritten(random_graph(seed, batch=1 + seed % 2, length=8))
    arrays: dict[str, Any] = {k: a.astype("f4") for k, a in random_arrays(graph, seed).items()}
    for runner in (machine_code, interpreted) if seed < 4 else (machine_code,):
        monkeypatch.setattr(assemble, "choose", lambda apart, over: apart)
        expected = run_graph(graph, arrays, runner)
        monkeypatch.setattr(assemble, "choose", lambda apart, over: over)
        found = run_graph(graph, arrays, runner)
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, name)


@pytest.mark.dear
def test_random_graphs_do_share(always: None) -> None:
    """Or the test above would show nothing. Rows that are met more than once do not, and what moves
    nothing is no result of its own."""
    machine = cpu_machine(find_target("x86-64-v4"))
    graphs = [rewritten(random_graph(seed, length=8)) for seed in range(24)]
    programs = [lower(graph, machine, "drawn").program for graph in graphs]
    assert sum(len(updated(program)) for program in programs) > 3

"""From a graph to a program: kernels shared, memory reused, weights worked on beforehand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import run
from graphs import Array, Builder, evaluate_graph, random_arrays, rewritten

from convdsl import InputError
from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel import in_place
from convdsl.kernel.nodes import Buffer, Kernel
from convdsl.kernel.program import Access, Argument, Place, format_program
from convdsl.lowering.lower import Lowered, lower
from convdsl.lowering.memory import round_up
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.task import Task
from convdsl.tensor import symbol

X86 = "x86_64-unknown-linux-gnu"


def lowered(graph: Graph, cpu: str = "x86-64-v3") -> Lowered:
    """By direct sums, whose filters take as many bytes as there are."""
    return lower(graph, cpu_machine(find_target(cpu, X86)).without("winograd"), "net")


def single(graph: Graph, **arrays: Array) -> Array:
    (found,) = run(graph, arrays, find_target())[0].values()
    return found


def tower(depth: int) -> Graph:
    """Equal convolutions one after the other, then one of another shape."""
    b = Builder()
    x = b.input("x", 1, 16, 8, 8)
    for _ in range(depth):
        x = b("relu", b("batch_norm", b("conv", x, channels=16, kernel=3, bias=False)))
    return b.output(y=b("conv", x, channels=16, kernel=1))


def test_equal_layers_share_a_kernel() -> None:
    program = lowered(rewritten(tower(6))).program
    pack, *steps = program.steps
    names = [step.kernel for step in steps]
    assert len(names) == 8  # six, the last one, and the copy to the plain output
    assert len(set(names[1:6])) == 1
    assert names[0] != names[1], "the first reads a plain input, which is packed"
    assert pack.nodes[0].startswith("pack for")
    assert len(program.kernels) == len({pack.kernel, *names}) == 5
    weights = [step.arguments[0:-1] for step in steps[1:6]]
    assert len(set(weights)) == 5, "each with its own weights"


def test_schedules_are_asked_once_of_equal_tasks() -> None:
    """However many layers are equal, and however often a task is tried as a part of another."""
    b = Builder()
    x = b.input("x", 1, 16, 8, 8)
    for _ in range(4):
        x = b("softmax", b("conv", x, channels=16, kernel=3), axis=-1)
    machine = cpu_machine(find_target("x86-64-v3", X86))
    asked: list[Task] = []
    watched = machine.schedules[-1]

    def cost(task: Task) -> float | None:
        asked.append(task)
        return watched.cost(task)

    machine = replace(machine, schedules=(*machine.schedules[:-1], replace(watched, cost=cost)))
    lower(rewritten(b.output(y=x)), machine, "net")
    assert len(asked) > 3, "the generic schedule is asked of everything"
    assert len(asked) == len(set(asked))


def test_what_may_lie_over_what_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By those who hand certain kernels on, and by those who plan memory twice."""
    looked: list[tuple[str, str, str]] = []
    whether = in_place._may_lie_over  # pyright: ignore[reportPrivateUsage]

    def watched(kernel: Kernel, old: Buffer, new: Buffer, *more: Any) -> bool:
        looked.append((kernel.name, old.name, new.name))
        return whether(kernel, old, new, *more)

    monkeypatch.setattr(in_place, "_may_lie_over", watched)
    b = Builder()
    x = b("relu", b.input("x", 1, 16, 8, 8))
    for _ in range(3):
        x = b("relu", b("add", b("conv", x, channels=16, kernel=3), x))
    machine = cpu_machine(find_target("x86-64-v3", X86))
    lower(rewritten(b.output(y=x)), machine, "net", certain=lambda kernel: None)
    assert looked
    assert len(looked) == len(set(looked))


def test_memory_is_reused_along_the_chain() -> None:
    """Two activations at a time, however deep the network."""
    activation = 16 * 8 * 8 * 4
    for depth in (2, 6, 12):
        assert lowered(rewritten(tower(depth))).program.arena_bytes == 2 * activation


@pytest.mark.dear(share=4)
def test_steps_never_overwrite_what_is_still_wanted() -> None:
    """Skips keep values alive across other writes."""
    b = Builder()
    x = b("relu", b.input("x", 1, 16, 8, 8))
    kept = [x]
    for _ in range(5):
        x = b("conv", x, channels=16, kernel=3)
        kept.append(x)
    for old in kept[:3]:
        x = b("add", b("conv", x, channels=16, kernel=1), old)
    graph = b.output(y=x)
    arrays = {k: a.astype("f4") for k, a in random_arrays(graph, scale=0.3).items()}
    expected = evaluate_graph(graph, arrays)["y"]
    found = run(rewritten(graph), arrays, find_target())[0]["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_weight_time_arithmetic_makes_no_steps() -> None:
    """A folded batch norm leaves one step: its scale goes into the packed weights."""
    b = Builder()
    h = b("conv", b.input("x", 1, 16, 8, 8), channels=16, kernel=3)
    graph = rewritten(b.output(y=b("relu", b("batch_norm", h))))
    program = lowered(graph).program
    nodes = [step.nodes[0] for step in program.steps]
    assert nodes == ["pack for conv1", "conv1", "output y"]
    # Packed: the filters, and one vector of 16 biases.
    assert program.weight_bytes == round_up(16 * 16 * 9 * 4, 64) + round_up(16 * 4, 64)


def test_an_unfolded_batch_norm_is_one_scale_and_one_shift() -> None:
    """Even without passes nothing is divided at run time: what follows from weights is packed."""
    b = Builder()
    graph = b.output(y=b("batch_norm", b.input("x", 1, 16, 8, 8)))
    low = lowered(graph)
    reads = {p.source.expr is not None for p in low.packings}
    assert True in reads
    assert len(low.program.steps) == 1


def test_weights_that_two_steps_read_alike_are_packed_once() -> None:
    b = Builder()
    x = b.input("x", 1, 16, 8, 8)
    h = b("relu", x)
    first = b("conv", h, channels=16, kernel=3, name="shared", bias=False)
    weight = b.graph.states["shared.weight"].output
    again = b("conv", first, channels=16, kernel=3, states={"weight": weight}, bias=False)
    low = lowered(b.output(y=again))
    assert len(low.packings) == 1


def test_sizes_of_a_program() -> None:
    program = lowered(rewritten(tower(1))).program
    filters = 16 * 16 * 9 * 4 + 64 + 16 * 16 * 4 + 64
    assert program.weight_bytes == filters
    ends: dict[Place, int] = {}
    kernels = {kernel.name: kernel for kernel in program.kernels}
    for step in program.steps:
        for argument, buffer in zip(step.arguments, kernels[step.kernel].buffers, strict=True):
            end = argument.offset + buffer.size * buffer.dtype.bytes
            ends[argument.place] = max(ends.get(argument.place, 0), end)
    assert ends[Place.ARENA] <= program.arena_bytes
    assert ends[Place.WEIGHTS] <= program.weight_bytes


def test_steps_as_text() -> None:
    text = format_program(lowered(rewritten(tower(1))).program).splitlines()
    assert text[:3] == [
        "program net",
        "  in  x: f32[1, 16, 8, 8]",
        "  out y: f32[1, 16, 8, 8]",
    ]
    assert str(Argument(Place.INPUT, 1)) == "input1"
    assert str(Argument(Place.ARENA, 0, 128)) == "arena+128"
    assert str(Argument(Place.STATE, 2, 0, Access.UPDATE)) == "inout state2"
    assert text[-1].endswith("# output y")


@pytest.mark.parametrize("size", [symbol("N"), symbol("H") * 2])
def test_unbound_sizes_are_named(size) -> None:
    b = Builder()
    graph = b.output(y=b("relu", b.input("x", size, 16, 8, 8)))
    with pytest.raises(InputError, match=r"^sizes not given: [NH] \(x is f32\["):
        lowered(graph)


# Outputs


def test_one_value_as_two_outputs() -> None:
    b = Builder()
    y = b("relu", b.input("x", 2, 3, 4, 4))
    graph = b.output(one=y, two=y)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype("f4")
    found = run(graph, {"x": x}, find_target())[0]
    np.testing.assert_array_equal(found["one"], np.maximum(x, 0))
    np.testing.assert_array_equal(found["two"], np.maximum(x, 0))


def test_an_input_as_output() -> None:
    b = Builder()
    x = b.input("x", 2, 3, 4, 4)
    graph = b.output(same=x, y=b("relu", x))
    array = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype("f4")
    found = run(graph, {"x": array}, find_target())[0]
    np.testing.assert_array_equal(found["same"], array)
    np.testing.assert_array_equal(found["y"], np.maximum(array, 0))


def test_a_weight_as_output() -> None:
    b = Builder()
    w = b.parameter("w", 5, 7)
    graph = b.output(y=b("relu", b.input("x", 5, 7)), weight=b("neg", w))
    arrays = {"x": np.ones((5, 7), "f4"), "w": np.arange(35, dtype="f4").reshape(5, 7)}
    found = run(graph, arrays, find_target())[0]
    np.testing.assert_array_equal(found["weight"], -arrays["w"])


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 17), (2, 17, 3), (1, 1, 1, 1, 1)])
def test_every_rank(shape: tuple[int, ...]) -> None:
    b = Builder()
    x = b.input("x", *shape)
    array = np.random.default_rng(0).standard_normal(shape).astype("f4")
    found = single(b.output(y=b("relu", b("add", x, x))), x=array)
    np.testing.assert_array_equal(found, np.maximum(array + array, 0))


def test_an_output_that_is_read_again_is_computed_once() -> None:
    b = Builder()
    h = b("linear", b.input("x", 3, 8), channels=5, name="first")
    graph = b.output(h=h, y=b("relu", h))
    program = lowered(rewritten(graph)).program
    assert sum("first" in step.nodes for step in program.steps) == 1

"""Operators that move nothing make no step: their results lie in what they read, or the other way
round; nothing of it changes a number."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import pytest
from executors import executing, interpreted, interpreting, machine_code, run_graph, run_session
from graphs import Builder, rewritten

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.program import Place, Program
from convdsl.kernel.verify_program import verify_program
from convdsl.lowering.lower import lower
from convdsl.ops import BY_NAME
from convdsl.schedules.cpu.machine import cpu_machine


def programmed(graph: Graph) -> Program:
    program = lower(rewritten(graph), cpu_machine(find_target("x86-64-v4")), "net").program
    verify_program(program)
    return program


def ops_of(program: Program) -> list[str]:
    """The operators of the steps: their layers' names, without numbers."""
    return [name.rstrip("0123456789") for step in program.steps for name in step.nodes]


def check(graph: Graph, **arrays: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """What the loop interpreter and machine code compute, which is the same."""
    found = run_graph(rewritten(graph), arrays, machine_code)
    for name, array in run_graph(rewritten(graph), arrays, interpreted).items():
        np.testing.assert_array_equal(found[name], array)
    return found


def counted(*shape: int) -> np.ndarray[Any, Any]:
    return np.arange(prod(shape)).astype("f4").reshape(shape)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("block", [2, 3, 8])
def test_space_to_depth_is_one_copy(block: int) -> None:
    """As ONNX's exporters write it: reshape, transpose, reshape."""
    n, c, h, w = 2, 5, 2 * block, 20 * block
    b = Builder()
    x = b.input("x", n, c, h, w)
    apart = b("reshape", x, shape=(n, c, h // block, block, w // block, block))
    moved = b("transpose", apart, axes=(0, 3, 5, 1, 2, 4))
    graph = b.output(y=b("reshape", moved, shape=(n, c * block * block, h // block, w // block)))
    program = programmed(graph)
    assert ops_of(program) == ["transpose"]
    places = [argument.place for argument in program.steps[0].arguments]
    assert places == [Place.INPUT, Place.OUTPUT]
    assert program.arena_bytes == 0
    given = counted(n, c, h, w)
    wanted = given.reshape(n, c, h // block, block, w // block, block).transpose(0, 3, 5, 1, 2, 4)
    np.testing.assert_array_equal(check(graph, x=given)["y"], wanted.reshape(n, -1, 2, 20))


def test_an_input_that_is_put_out_under_another_shape_is_copied() -> None:
    b = Builder()
    graph = b.output(y=b("reshape", b.input("x", 4, 6), shape=(3, 8)))
    assert ops_of(programmed(graph)) == ["reshape"]
    np.testing.assert_array_equal(check(graph, x=counted(4, 6))["y"], counted(3, 8))


def test_of_two_outputs_of_one_value_one_is_copied() -> None:
    """The value itself lies in the one, the other needs its elements too."""
    b = Builder()
    h = b("neg", b.input("x", 4, 6))
    graph = b.output(a=b("reshape", h, shape=(3, 8)), b=b("reshape", h, shape=(24,)))
    assert ops_of(programmed(graph)) == ["neg", "reshape"]
    found = check(graph, x=counted(4, 6))
    np.testing.assert_array_equal(found["a"], -counted(3, 8))
    np.testing.assert_array_equal(found["b"], -counted(24))


def test_a_value_that_is_an_output_too_serves_both() -> None:
    """The reader of the shape reads the caller's array."""
    b = Builder()
    h = b("neg", b.input("x", 4, 6))
    graph = b.output(h=h, y=b("exp", b("reshape", h, shape=(3, 8))))
    assert ops_of(programmed(graph)) == ["neg", "exp"]
    found = check(graph, x=counted(4, 6) / 24)
    np.testing.assert_allclose(found["y"], np.exp(-counted(3, 8) / 24), rtol=1e-6)


def parts(wide: int, *, made: bool) -> Graph:
    """Of an input, or of what a kernel makes."""
    b = Builder()
    x = b.input("x", 7, wide)
    h = b("neg", b("transpose", b.input("z", wide, 7), axes=(1, 0))) if made else x
    split = b.build.apply(BY_NAME["split"], {"x": h}, {"parts": (3, 4), "axis": 0}, name="split")
    first, second = split.outputs
    rest = b("slice", h, axes=(0,), start=(5,), stop=(7,), step=(1,))
    return b.output(a=b("exp", first), b=b("exp", second), c=b("exp", rest))


@pytest.mark.dear(share=4)
def test_parts_of_the_first_axis_lie_in_the_whole() -> None:
    """Where a kernel finds them as it finds any buffer: in the arena, at a multiple of a line."""
    graph = parts(16, made=True)
    assert ops_of(programmed(graph)).count("exp") == 3
    assert {"split", "slice"}.isdisjoint(ops_of(programmed(graph)))
    assert "split" in ops_of(programmed(parts(15, made=True)))
    assert "split" in ops_of(programmed(parts(16, made=False)))
    for wide, made in ((16, True), (15, True), (16, False)):
        x = counted(7, wide) / 112
        found = check(parts(wide, made=made), x=x, z=-x.T)
        for name, part in (("a", x[:3]), ("b", x[3:]), ("c", x[5:])):
            np.testing.assert_allclose(found[name], np.exp(part), rtol=1e-6)


def test_a_whole_with_parts_stays_in_the_arena() -> None:
    """Although an output shows all of it."""
    b = Builder()
    h = b("neg", b.input("x", 8, 16))
    part = b("exp", b("slice", h, axes=(0,), start=(4,), stop=(8,), step=(1,)))
    graph = b.output(p=part, y=b("reshape", h, shape=(128,)))
    x = counted(8, 16) / 128
    found = check(graph, x=x)
    np.testing.assert_array_equal(found["y"], -x.reshape(-1))
    np.testing.assert_allclose(found["p"], np.exp(-x[4:]), rtol=1e-6)
    programmed(graph)


@pytest.mark.parametrize("axis", [1, 2])
def test_parts_of_other_axes_and_steps_are_copied(axis: int) -> None:
    b = Builder()
    h = b("neg", b.input("x", 2, 6, 8))
    part = b("slice", h, axes=(axis,), start=(0,), stop=(6,), step=(2,))
    assert "slice" in ops_of(programmed(b.output(y=b("exp", part))))


def test_what_is_blocked_is_unpacked() -> None:
    """Channels of a map lie side by side; those of its row of numbers do not."""
    b = Builder()
    h = b("conv", b.input("x", 1, 3, 6, 6), channels=32, kernel=3)
    graph = b.output(y=b("exp", b("flatten", h, start=1)))
    assert "flatten" in ops_of(programmed(graph))
    pooled = b("flatten", b("avg_pool", h, kernel="global"), start=1)
    program = programmed(b.output(z=b("linear", pooled, channels=5)))
    assert ops_of(program).count("flatten") == 1  # one position: blocks are a row already


@pytest.mark.parametrize("way", [interpreting, executing])
def test_states_are_never_looked_at_in_passing(way: Callable[..., Any]) -> None:
    """A state changes in the call, and what was read of it before does not; nor is a new state seen
    under another shape."""
    b = Builder()
    x, s = b.input("x", 4, 6), b.parameter("s", 4, 6)
    after = b("add", s, x)
    b.update(s, after)
    seen = b("neg", b("reshape", after, shape=(24,)))
    graph = rewritten(b.output(y=b("neg", b("reshape", s, shape=(3, 8))), z=seen))
    given = [{"x": counted(4, 6)}, {"x": -2 * counted(4, 6)}]
    session = run_session(graph, {"s": np.ones((4, 6), "f4")}, given, way)
    before = np.ones((4, 6), "f4")
    for (outputs, states), each in zip(session, given, strict=True):
        np.testing.assert_array_equal(outputs["y"], -before.reshape(3, 8))
        before = before + each["x"]
        np.testing.assert_array_equal(outputs["z"], -before.reshape(24))
        np.testing.assert_array_equal(states["s"], before)


def test_results_do_not_lie_over_what_is_looked_at_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape is read after a map of the same value, which could have lain over that."""
    from convdsl.lowering import assemble

    monkeypatch.setattr(assemble, "choose", lambda apart, over: over)
    b = Builder()
    h = b("transpose", b.input("x", 4, 6), axes=(1, 0))
    again = b("transpose", b("exp", h), axes=(1, 0))
    late = b("reshape", h, shape=(3, 8))
    graph = b.output(a=again, b=b("matmul", late, b.input("w", 8, 2)))
    x, w = counted(4, 6) / 24, counted(8, 2)
    found = check(graph, x=x, w=w)
    np.testing.assert_allclose(found["b"], x.T.reshape(3, 8) @ w, rtol=1e-5)
    np.testing.assert_allclose(found["a"], np.exp(x), rtol=1e-6)


def test_the_only_part_of_a_concatenation() -> None:
    """It lies in the whole, which therefore does not lie in it. Passes would take it out."""
    b = Builder()
    x = b.input("x", 1, 16, 9, 8)
    graph = b.output(y=b("exp", b("concat", b("max_pool", x, kernel=3, pad=1), axis=1)))
    given = np.random.default_rng(0).standard_normal((1, 16, 9, 8), "f4")
    found = run_graph(graph, {"x": given}, machine_code)
    wanted = run_graph(rewritten(graph), {"x": given}, machine_code)
    np.testing.assert_array_equal(found["y"], wanted["y"])


def _moved_about(random: np.random.Generator) -> tuple[Graph, dict[str, Any]]:
    """A graph of movements and of maps that compute, and what its outputs are made of."""
    b = Builder()
    n, c = int(random.integers(1, 3)), int(random.choice([4, 16, 32]))
    known = [(b.input("x", n, c, 4, 6), counted(n, c, 4, 6))]
    for _ in range(int(random.integers(2, 9))):
        value, array = known[random.integers(len(known))]
        match random.choice(["reshape", "slice", "concat", "only", "negate", "turn"]):
            case "reshape":
                shape = array.shape
                folded = (shape[0], prod(shape[1:]), 1, 1)
                shape = folded if random.random() < 0.5 else (1, prod(shape[:2]), *shape[2:])
                made = b("reshape", value, shape=shape), array.reshape(shape)
            case "slice":
                axis = int(random.integers(4))
                first = int(random.integers(array.shape[axis]))
                where = {"axes": (axis,), "start": (first,), "stop": (array.shape[axis],)}
                cut = (*[slice(None)] * axis, slice(first, None))
                made = b("slice", value, **where, step=(1,)), array[cut]
            case "concat":
                alike = [k for k in known if k[1].shape[2:] == array.shape[2:]]
                alike = [k for k in alike if k[1].shape[0] == array.shape[0]]
                other, more = alike[random.integers(len(alike))]
                joined = np.concatenate([array, more], 1)
                made = b("concat", value, other, axis=1), joined
            case "only":
                made = b("concat", value, axis=1), array
            case "negate":
                made = b("neg", value), -array
            case _:
                turned = array.transpose(0, 1, 3, 2)
                made = b("transpose", value, axes=(0, 1, 3, 2)), turned
        known.append(made)
    chosen = random.choice(len(known) - 1, min(2, len(known) - 1), replace=False) + 1
    outputs = {f"y{i}": known[k] for i, k in enumerate([*chosen, len(known) - 1])}
    graph = b.output(**{name: value for name, (value, _) in outputs.items()})
    return graph, {name: array for name, (_, array) in outputs.items()}


@pytest.mark.parametrize("seed", [pytest.param(i, marks=pytest.mark.drawn) for i in range(120)])
def test_whatever_moves_arrives(seed: int) -> None:
    graph, wanted = _moved_about(np.random.default_rng(seed))
    (x,) = graph.inputs.values()
    for form in (graph, rewritten(graph)):
        lower(form, cpu_machine(find_target("x86-64-v4")), "net")
        found = run_graph(form, {"x": counted(*x.type.sizes)}, interpreted)
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)

"""Maps on plain tensors run as one row, whatever their axes; others do not."""

from __future__ import annotations

from typing import Any

import pytest
from drawn_convolutions import check
from graphs import Builder
from weight_updates import drawn, settings, update_model

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.program import Access, Place
from convdsl.lowering.lower import lower
from convdsl.passes import run as run_passes
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType


def maps(*shape: int, dtype: DType = DType.F32) -> Graph:
    b = Builder()
    x, y = b.input("x", *shape, dtype=dtype), b.input("y", *shape, dtype=dtype)
    scale = b.input("scale", dtype=dtype)
    return b.output(z=b("mul", b("sub", b("neg", x), b("abs", y)), scale))


@pytest.mark.dear
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64], ids=str)
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 5), (2, 3, 3, 3), (7, 1, 5), (4, 4), (5, 3, 1, 11), (33, 3)], ids=str
)
def test_any_shape_is_a_row(shape: tuple[int, ...], dtype: DType) -> None:
    graph = maps(*shape, dtype=dtype)
    assert set(check(graph, dtype)) == {"flat"}


def test_where_positions_matter_it_is_none() -> None:
    def broadcast(b: Builder) -> Any:
        return b("add", b.input("x", 3, 5), b.input("row", 5))

    def turned(b: Builder) -> Any:
        return b("transpose", b.input("x", 3, 5), axes=(1, 0))

    def summed(b: Builder) -> Any:
        return b("reduce_sum", b.input("x", 3, 5, 2), axes=(2,))

    for make in (broadcast, turned, summed):
        b = Builder()
        assert "flat" not in check(b.output(y=make(b)))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop", "radam", "lion"])
def test_an_update_is_one_pass_in_place(optimizer: str) -> None:
    """A kernel for each parameter that makes the weight and all its slots where they lie."""
    weights, _ = drawn(1, 0)
    arrays = {key: w.astype("f4") for key, w in weights.items() if w.ndim}
    said = {"momentum": 0.9} if optimizer == "sgd" else {}
    training = settings(optimizer, optimizer_arguments=said, ema=0.9)
    graph, _ = update_model(training, arrays, DType.F32)
    program = lower(run_passes(graph), cpu_machine(find_target()), "updates").program
    assert program.arena_bytes <= 64 * 8  # scalars alone
    places = {port.name: number for number, port in enumerate(program.states)}
    for key in arrays:
        own = {places[name] for name in graph.updates if name == key or name.endswith(f".{key}")}
        steps = [
            {
                a.slot
                for a in step.arguments
                if a.place is Place.STATE and a.access is not Access.READ
            }
            for step in program.steps
        ]
        assert [step & own for step in steps if step & own] == [own]


def test_what_asks_where_it_is_keeps_its_axes() -> None:
    """What chooses by its own position is no row, although every axis lies plain."""
    b = Builder()
    graph = b.output(y=b("concat", b.input("x", 3, 5), b.input("z", 4, 5), axis=0))
    assert "flat" not in check(graph)

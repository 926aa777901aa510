"""Rows of what is plain: read in steps, turned around, repeated, with a border; by vectors."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from graphs import Builder, evaluate_graph
from kernels import run_interpreter, run_machine_code

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.builder import Builder as LoopBuilder
from convdsl.kernel.counting import decide, needed
from convdsl.kernel.expr import Axis
from convdsl.kernel.nodes import (
    Const,
    Gather,
    IndexTest,
    Kernel,
    Load,
    Value,
    ValueType,
    statement_values,
    value_children,
    walk_statements,
)
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.spans import together
from convdsl.tensor import DType, substitute

MOVES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("slice", (2, 20, 9, 75), {"axes": 3, "start": 1, "step": 2}),
    ("slice", (1, 3, 5, 100), {"axes": 3, "step": 7}),
    ("slice", (1, 18, 31, 33), {"axes": 2, "start": 1, "step": 2}),
    ("slice", (2, 17, 6, 41), {"axes": 3, "step": -1}),
    ("slice", (2, 17, 21, 16), {"axes": 2, "step": -2}),
    ("pad", (1, 16, 9, 50), {"pad": ((1, 2), (3, 5)), "mode": "reflect"}),
    ("pad", (1, 16, 9, 37), {"pad": ((0, 0), (20, 1)), "mode": "replicate"}),
    ("pad", (1, 1, 9, 17), {"pad": 2, "mode": "circular"}),
    ("pad", (1, 20, 3, 19), {"pad": ((1, 0), (2, 15)), "value": -1.5}),
    ("tile", (1, 16, 3, 19), {"repeats": (1, 1, 2, 3)}),
    ("resize", (1, 16, 5, 24), {"scale": 2}),
    ("resize", (1, 16, 3, 64), {"scale": 0.5}),
    ("roll", (1, 16, 4, 45), {"shift": (1, 7), "axes": (2, 3)}),
]


def gathers(kernel: Kernel) -> bool:
    """Whether lanes are picked one by one."""
    pending = [v for s in walk_statements(kernel.body) for v in statement_values(s)]
    while pending:
        value = pending.pop()
        if isinstance(value, Gather):
            return True
        pending += value_children(value)
    return False


@pytest.mark.dear
@pytest.mark.parametrize(("op", "shape", "attributes"), MOVES)
def test_rows_are_moved_in_vectors(
    op: str, shape: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    b = Builder()
    graph = b.output(y=b(op, b.input("x", *shape), **attributes))
    program = lower(graph, cpu_machine(find_target()), "t").program
    assert len(program.steps) == 1
    assert not any(map(gathers, program.kernels))
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    x.flat[::7] = np.nan
    wanted = evaluate_graph(graph, {"x": x})["y"]
    for run in (machine_code, interpreted):
        np.testing.assert_array_equal(run_graph(graph, {"x": x}, run)["y"], wanted)


@pytest.mark.dear
@pytest.mark.parametrize(
    ("shape", "size", "kernel", "stride", "pad"),
    [
        ((2, 147, 30), (15, 17), 7, 2, 0), ((1, 48, 156), (26, 25), 4, 2, 1),
        ((1, 100, 96), (27, 20), 5, 2, 0), ((1, 27, 80), (24, 30), 3, 3, 0),
        ((1, 45, 143), (13, 15), 3, 1, 0), ((1, 75, 40), (25, 40), 5, 5, 0),
    ],
)  # fmt: skip
def test_patches_are_added_up_in_vectors(
    shape: tuple[int, ...], size: tuple[int, int], kernel: int, stride: int, pad: int
) -> None:
    b = Builder()
    how = {"size": size, "kernel": kernel, "stride": stride, "pad": pad}
    graph = b.output(y=b("fold", b.input("x", *shape), **how))
    x = np.random.default_rng(5).standard_normal(shape).astype(np.float32)
    wanted = np.zeros((shape[0], shape[1] // kernel**2, *(s + 2 * pad for s in size)))
    across = (size[1] + 2 * pad - kernel) // stride + 1
    patches = x.reshape(shape[0], -1, kernel, kernel, shape[2])
    for place in range(shape[2]):
        top, left = (stride * at for at in divmod(place, across))
        here = wanted[:, :, top : top + kernel, left : left + kernel]
        here += patches[..., place]
    wanted = wanted[:, :, pad : size[0] + pad, pad : size[1] + pad]
    for run in (machine_code, interpreted):
        np.testing.assert_allclose(run_graph(graph, {"x": x}, run)["y"], wanted, 1e-5, 1e-5)


@pytest.mark.parametrize("op", ["tile", "resize"])
def test_what_has_no_even_steps_is_right_all_the_same(op: str) -> None:
    how = {"repeats": (1, 1, 1, 9)} if op == "tile" else {"scale": 1.5}
    b = Builder()
    graph = b.output(y=b(op, b.input("x", 1, 16, 3, 26), **how))
    x = np.random.default_rng(5).standard_normal((1, 16, 3, 26)).astype(np.float32)
    wanted = evaluate_graph(graph, {"x": x})["y"]
    for run in (machine_code, interpreted):
        np.testing.assert_array_equal(run_graph(graph, {"x": x}, run)["y"], wanted)


def drawn(random: np.random.Generator, lanes: int) -> tuple[list[int | None], int | None]:
    """Places in a buffer of 100, near each other or not, and how many lanes are there."""
    reach = int(random.choice([1, lanes, 2 * lanes, 5 * lanes, 70]))
    kind = random.integers(4)
    if kind == 3:  # rows in turn
        rows, wide = int(random.integers(2, 4)), int(random.integers(20, 45))
        places = [lane % rows * wide + lane // rows for lane in range(lanes)]
    elif kind == 0:
        step = int(random.integers(-3, 4))
        places = [step * lane - min(0, step * (lanes - 1)) for lane in range(lanes)]
    else:
        places = [int(place) for place in random.integers(0, reach, lanes)]
    known: list[int | None] = [p if random.random() < 0.8 or kind == 1 else None for p in places]
    return known, int(random.integers(1, lanes)) if random.random() < 0.4 else None


@pytest.mark.dear
@pytest.mark.parametrize("lanes", [4, 8, 16])
@pytest.mark.parametrize("dtype", [DType.F32, DType.F64, DType.I64, DType.U8], ids=str)
def test_vectors_hold_what_lanes_would(dtype: DType, lanes: int) -> None:
    """The same lanes, whichever read where, near the buffer's ends too, and under a guard."""
    random = np.random.default_rng(lanes)
    x = random.integers(0, 200, 100).astype(dtype.numpy)
    one, rounds, vectors = ValueType(dtype), 40, 0
    b = LoopBuilder("near", dtype, lanes)
    source = b.buffer("x", dtype, x.size)
    y = b.buffer("y", dtype, 2 * rounds * lanes, written=True)
    wanted = np.zeros((rounds, 2, lanes), dtype.numpy)
    counts: list[int] = []
    for number in range(rounds):
        places, valid = drawn(random, lanes)
        most = x.size - 1 - max((p for p in places if p is not None), default=0)
        until = 2 if random.random() < 0.8 else 1
        with b.serial("at", 2) as at:
            guard = (IndexTest("lt", at, until),)
            made: list[Value] = [
                Const(7, one) if p is None else Load(source, at * most + p, one, guard, 7)
                for p in places
            ]
            value = together(b, Gather(tuple(made), ValueType(dtype, lanes)), valid)
            vectors += not isinstance(value, Gather)
            b.store(y, (2 * number + at) * lanes, value, valid)
        counts.append(lanes if valid is None else valid)
        for time in range(2):
            kept = [p is not None and time < until for p in places]
            read = [x[time * most + (p or 0)] for p in places]
            wanted[number, time] = np.where(kept, read, 7)
    assert vectors > rounds // 3
    for run in (run_machine_code, run_interpreter):
        found = run(b.kernel(), {"x": x})["y"].reshape(wanted.shape)
        for number, count in enumerate(counts):
            part = slice(None), slice(count)
            np.testing.assert_array_equal(found[number][part], wanted[number][part])


def test_tests_that_follow_from_others_are_left_out() -> None:
    row, block = Axis("row", 9).i, Axis("block", 4).i
    first = IndexTest("ge", row - 1, 0)
    assert needed([first, IndexTest("ge", 15 * row + 4 * block - 11, 0)]) == (first,)
    assert needed([first, IndexTest("gt", 15 * row, 14)]) == (first,)
    under = IndexTest("lt", row, 5)
    assert needed([under, IndexTest("le", 3 * row, 12), under]) == (under,)
    for other in (
        IndexTest("ge", 15 * row + 4 * block - 16, 0),
        IndexTest("ge", block - 1, 0),
        IndexTest("lt", row, 8),
        IndexTest("ge", 8 - row, 4),
        IndexTest("eq", row, 1),
    ):
        assert needed([first, other]) == (first, other)


@pytest.mark.dear
def test_what_is_left_out_never_decides() -> None:
    """Drawn tests of three counters, all values of these tried."""
    random = np.random.default_rng(7)
    axes = [Axis(name, 6) for name in "abc"]
    fewer = 0
    for _ in range(300):
        tests = [
            IndexTest(
                str(random.choice(["ge", "gt", "le", "lt", "eq", "ne"])),
                sum(
                    (
                        int(k) * axis.i
                        for k, axis in zip(random.integers(-3, 4, 3), axes, strict=True)
                    ),
                    start=0,
                ),
                int(random.integers(-6, 7)),
            )
            for _ in range(int(random.integers(1, 5)))
        ]
        kept = needed(tests)
        fewer += len(kept) < len(tests)
        for place in product(range(6), repeat=3):
            at = dict(zip("abc", place, strict=True))
            held = [
                all(
                    decide(IndexTest(t.op, substitute(t.a, at), substitute(t.b, at)))
                    for t in several
                )
                for several in (tests, kept)
            ]
            assert held[0] == held[1]
    assert fewer > 30

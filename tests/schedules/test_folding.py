"""Patches added up where they were: loops over the taps that count, vectors whose lanes all do."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import check
from graphs import Builder

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph
from convdsl.kernel.expr import Axis, IndexCompare, Literal, Read, Reduce, Select, TensorVar
from convdsl.kernel.nodes import For, Gather, Load, walk_statements
from convdsl.lowering.lower import lower
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.schedules.terms import counted
from convdsl.tensor import DType, TensorType


def folded(
    size: tuple[int, ...], n: int, channels: int, dtype: DType = DType.F32, **how: Any
) -> Graph:
    """Columns of a map of that size."""
    kernel, stride, pad, dilation = (how[k] for k in ("kernel", "stride", "pad", "dilation"))
    places = 1
    for side, k, s, p, d in zip(size, kernel, stride, pad, dilation, strict=True):
        places *= (side + 2 * p - d * (k - 1) - 1) // s + 1
    b = Builder()
    taps = int(np.prod(kernel))
    x = b.input("x", n, channels * taps, places, dtype=dtype)
    return b.output(y=b("fold", x, size=size, **how))


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("seed", range(40))
def test_drawn(seed: int) -> None:
    """Kernels of 1 to 7, few and many taps, rows shorter and longer than a vector."""
    random = Random(seed)
    kernel = tuple(random.randint(1, 7) for _ in range(2))
    stride = tuple(random.choice([1, 1, 2, 3]) for _ in range(2))
    dilation = tuple(random.choice([1, 1, 2]) for _ in range(2))
    pad = tuple(random.randint(0, k) for k in kernel)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(r + random.randint(0, m) for r, m in zip(reach, (5, 40), strict=True))
    how = {"kernel": kernel, "stride": stride, "pad": pad, "dilation": dilation}
    dtype = DType.F64 if seed % 5 == 0 else DType.F32
    graph = folded(size, random.choice([1, 2]), random.choice([1, 3, 17]), dtype, **how)
    check(graph, dtype, ("native", "x86-64-v3", "x86-64-v2")[seed % 3], loops=seed % 8 == 0)


@pytest.mark.dear
@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("seed", range(40))
def test_drawn_in_phases(seed: int) -> None:
    """Steps of up to 8 and more, kernels that divide into them and that do not, and smaller ones;
    rows of less than a block and of many; maps of one to three axes; what follows the sums."""
    random = Random(900 + seed)
    rank = random.choice([1, 2, 2, 2, 3])
    stride = tuple(random.randint(1, 9) for _ in range(rank))
    kernel = tuple(max(1, s * random.choice([1, 1, 2]) + random.randint(-1, 2)) for s in stride)
    dilation = tuple(random.choice([1, 1, 2]) for _ in range(rank))
    pad = tuple(random.randint(0, k - 1) for k in kernel)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    size = tuple(r + random.randint(0, 90 if r is reach[-1] else 8) for r in reach)
    how = {"kernel": kernel, "stride": stride, "pad": pad, "dilation": dilation}
    dtype = DType.F64 if seed % 5 == 0 else DType.F32
    graph = folded(size, random.choice([1, 2]), random.choice([1, 3]), dtype, **how)
    check(graph, dtype, ("native", "x86-64-v3", "x86-64-v2")[seed % 3], loops=seed % 8 == 0)


@pytest.mark.parametrize(
    ("kernel", "stride", "width", "chosen"),
    [
        (7, 2, 56, True),
        (8, 7, 112, True),
        (5, 3, 61, True),
        (7, 1, 63, True),
        (3, 5, 64, True),
        (16, 16, 64, False),  # more phases than lanes
    ],
)
def test_phases_are_sums_of_whole_vectors(
    kernel: int, stride: int, width: int, chosen: bool
) -> None:
    """Terms in the middle of rows are loads of vectors under no guard, however kernel and steps
    divide; each term of a phase once."""
    pad = kernel // 2 if stride < 5 else 0
    how = {name: (size,) * 2 for name, size in (("kernel", kernel), ("stride", stride))}
    graph = folded((width, width), 1, 8, pad=(pad, pad), dilation=(1, 1), **how)
    made = lower(graph, cpu_machine(find_target("x86-64-v3")), "fold")
    assert (made.choices[0].schedule == "interlaced") is chosen
    if chosen:
        statements = list(walk_statements(made.program.kernels[0].body))
        lets = [s.value for s in statements if hasattr(s, "value")]
        assert not any(isinstance(value, Gather) for value in lets)
        assert not any(value.guards for value in lets if isinstance(value, Load))


def test_rows_are_added_vector_by_vector() -> None:
    """Five taps along a row are unrolled, five across are a loop over those that count; nothing is
    gathered lane by lane."""
    ways = {"kernel": (5, 5), "stride": (1, 1), "pad": (2, 2), "dilation": (1, 1)}
    made = lower(folded((56, 56), 1, 16, **ways), cpu_machine(find_target("x86-64-v4")), "fold")
    (kernel,) = made.program.kernels
    statements = list(walk_statements(kernel.body))
    lets = [s.value for s in statements if hasattr(s, "value")]
    loads = [value for value in lets if isinstance(value, Load)]
    assert len(loads) > 5
    assert not any(isinstance(value, Gather) for value in lets)
    assert not any(load.guards for load in loads)
    taps = [s for s in statements if isinstance(s, For) and s.var.name.startswith("t0")]
    assert taps


def sum_of(*tests: IndexCompare) -> Reduce:
    """Of x[i], i < 9, under tests."""
    i = Axis("i", 9)
    body: Any = Read(TensorVar("x", TensorType(DType.F32, (9,))), (i.i,))
    for test in tests:
        body = Select(test, body, Literal(0.0, DType.F32))
    return Reduce("sum", (i,), body)


@pytest.mark.parametrize(
    ("op", "step", "rest"),
    [
        (op, step, rest)
        for op in ("lt", "le", "gt", "ge")
        for step in (-3, -1, 1, 2)
        for rest in (-5, 0, 4)
    ],
)
def test_bounds_are_those_of_the_test(op: Any, step: int, rest: int) -> None:
    i = Axis("i", 9).i
    made, ranges = counted(sum_of(IndexCompare(op, i * step + rest, 0)), {}, "lane")
    first, past = ranges["i"]
    compare = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}[op]
    wanted = [n for n in range(9) if compare(n * step + rest, 0)]
    assert isinstance(first, int)
    assert isinstance(past, int)
    assert list(range(first, past)) == wanted
    assert isinstance(made.body, Read)


def test_what_bounds_no_loop_is_still_asked() -> None:
    """Equality, two axes at once, what differs from lane to lane."""
    i, other, lane = Axis("i", 9).i, Axis("h", 5).i, Axis("lane", 16).i
    for test in (
        IndexCompare("eq", i, 3),
        IndexCompare("lt", i * i, 9),
        IndexCompare("lt", i, lane),
    ):
        reduce = sum_of(test)
        assert counted(reduce, {}, "lane") == (reduce, {})
    _, ranges = counted(sum_of(IndexCompare("le", i, other)), {}, "lane")
    assert str(ranges["i"][1]) != "9"

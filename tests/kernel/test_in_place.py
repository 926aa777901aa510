"""One memory for what is read and what is written: where a kernel allows it, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import run_interpreter

from convdsl.kernel.builder import Builder
from convdsl.kernel.in_place import updates_in_place, written_over
from convdsl.kernel.interpret import interpret
from convdsl.kernel.nodes import Binary, Const, Gather, Get, IndexTest, Kernel, Load, ValueType
from convdsl.kernel.verify import verify_kernel
from convdsl.tensor import Dim, DType, dim_min

SIZE, LANES = 48, 4
F32X4 = ValueType(DType.F32, LANES)


class Example:
    """y = x + 1 in some order of loops: `where` gives what is read for what is written."""

    def __init__(self) -> None:
        self.b = Builder("example", DType.F32, LANES)
        self.x = self.b.buffer("x", DType.F32, SIZE)
        self.y = self.b.buffer("y", DType.F32, SIZE, written=True)

    def move(self, at: Dim, read: Dim | None = None) -> None:
        value = self.b.load(self.x, at if read is None else read)
        self.b.store(self.y, at, Binary("add", value, Const(1.0, value.type)))


def in_a_row() -> Kernel:
    e = Example()
    with e.b.parallel(("i",), (SIZE // LANES,)) as (i,):
        e.move(i * LANES)
    return e.b.kernel()


def gathered() -> Kernel:
    """Rows of three, read lane by lane and stored together: lanes lie within what is stored."""
    e = Example()
    one = ValueType(DType.F32)
    with e.b.parallel(("i",), (SIZE // 3,)) as (i,):
        lanes = (*(Load(e.x, i * 3 + j, one) for j in range(3)), Const(0.0, one))
        value = e.b.let(Gather(lanes, F32X4))
        e.b.store(e.y, i * 3, Binary("add", value, Const(1.0, F32X4)), valid=3)
    return e.b.kernel()


def gathered_from_beyond() -> Kernel:
    """The last lane belongs to the next row."""
    e = Example()
    one = ValueType(DType.F32)
    with e.b.parallel(("i",), (SIZE // 3 - 1,)) as (i,):
        lanes = tuple(Load(e.x, i * 3 + j, one) for j in range(4))
        value = e.b.let(Gather(lanes, F32X4))
        e.b.store(e.y, i * 3, Binary("add", value, Const(1.0, F32X4)), valid=3)
    return e.b.kernel()


def nested() -> Kernel:
    e = Example()
    with e.b.parallel(("i",), (3,)) as (i,), e.b.serial("j", 4) as j:
        e.move(i * 16 + j * LANES)
    return e.b.kernel()


def unrolled() -> Kernel:
    e = Example()
    with e.b.parallel(("i",), (6,)) as (i,):
        for j in range(2):
            e.move((i * 2 + j) * LANES)
    return e.b.kernel()


def all_loads_first() -> Kernel:
    e = Example()
    with e.b.parallel(("i",), (6,)) as (i,):
        values = [e.b.load(e.x, (i * 2 + j) * LANES) for j in range(2)]
        for j, value in enumerate(values):
            e.b.store(e.y, (i * 2 + j) * LANES, Binary("add", value, Const(1.0, F32X4)))
    return e.b.kernel()


def two_grids() -> Kernel:
    e = Example()
    for start, count in ((0, 8), (8, 4)):
        with e.b.parallel(("i",), (count,)) as (i,):
            e.move((i + start) * LANES)
    return e.b.kernel()


def bands() -> Kernel:
    """Bands of five vectors, the last one shorter."""
    e = Example()
    with e.b.parallel(("band",), (3,)) as (band,):
        first = band * 5
        with e.b.serial("i", dim_min(first + 5, 12), first) as i:
            e.move(i * LANES)
    return e.b.kernel()


def by_cases() -> Kernel:
    """The second of two bands does what is left over."""
    e = Example()
    with e.b.parallel(("band",), (2,)) as (band,):
        with e.b.serial("i", 5) as i:
            e.move((band * 5 + i) * LANES)
        with e.b.when(IndexTest("eq", band, 1)), e.b.serial("i", 2) as i:
            e.move((i + 10) * LANES)
    return e.b.kernel()


GOOD = (gathered, in_a_row, nested, unrolled, all_loads_first, two_grids, bands, by_cases)


def shifted() -> Kernel:
    """Each reads what its neighbour writes."""
    e = Example()
    e.x = e.b.buffer("x", DType.F32, SIZE)
    with e.b.parallel(("i",), (SIZE // LANES - 1,)) as (i,):
        e.move(i * LANES, (i + 1) * LANES)
    e.move(SIZE - LANES, SIZE - LANES)
    return e.b.kernel()


def mirrored() -> Kernel:
    e = Example()
    with e.b.parallel(("i",), (SIZE // LANES,)) as (i,):
        e.move(i * LANES, SIZE - LANES - i * LANES)
    return e.b.kernel()


def overlapping() -> Kernel:
    """The last tile is shifted back: some elements are computed twice."""
    e = Example()
    with e.b.parallel(("i",), (2,)) as (i,), e.b.serial("j", 5) as j:
        e.move((i * 5 + j) * LANES)
    with e.b.parallel(("j",), (4,)) as (j,):
        e.move((j + 8) * LANES)
    return e.b.kernel()


def too_late() -> Kernel:
    """Read once more after the write."""
    e = Example()
    with e.b.parallel(("i",), (SIZE // LANES,)) as (i,):
        e.move(i * LANES)
        e.b.load(e.x, i * LANES)
    return e.b.kernel()


def sums_put_aside() -> Kernel:
    """The output holds a sum while x is still wanted."""
    e = Example()
    acc = e.b.registers(1)
    with e.b.parallel(("i",), (SIZE // LANES,)) as (i,), e.b.serial("panel", 2) as panel:
        e.b.zero(acc)
        with e.b.when(IndexTest("gt", panel, 0)):
            e.b.set(acc, 0, e.b.load(e.y, i * LANES))
        e.b.set(acc, 0, Binary("add", Get(acc, 0), Const(1.0, F32X4)))
        with e.b.when(IndexTest("eq", panel, 1)):
            value = e.b.load(e.x, i * LANES)
            e.b.store(e.y, i * LANES, Binary("add", value, Get(acc, 0)))
        with e.b.when(IndexTest("eq", panel, 0)):
            e.b.store(e.y, i * LANES, Get(acc, 0))
    return e.b.kernel()


def wider_than_written() -> Kernel:
    """Only the first lanes are stored; others have been read."""
    e = Example()
    with e.b.parallel(("i",), (SIZE,)) as (i,):
        value = e.b.load(e.x, i)
        e.b.store(e.y, i, value, valid=1)
    return e.b.kernel()


BAD = (
    gathered_from_beyond,
    shifted,
    mirrored,
    overlapping,
    too_late,
    sums_put_aside,
    wider_than_written,
)


@pytest.mark.parametrize("example", GOOD, ids=lambda f: f.__name__)
def test_where_it_may(example) -> None:
    kernel = example()
    joined = written_over(kernel, "x", "y", "joined")
    assert joined is not None
    verify_kernel(joined)
    assert [(b.name, b.written) for b in joined.buffers] == [("y", True)]
    assert joined.name == "joined"
    assert updates_in_place(joined, joined.buffers[0])
    x = np.arange(SIZE, dtype=np.float32)
    np.testing.assert_array_equal(run_interpreter(kernel, {"x": x})["y"], x + 1)
    y = x.copy()
    interpret(joined, {"y": y})
    np.testing.assert_array_equal(y, x + 1)


@pytest.mark.parametrize("example", BAD, ids=lambda f: f.__name__)
def test_where_it_may_not(example) -> None:
    assert written_over(example(), "x", "y", "joined") is None


def test_only_buffers_of_one_size_and_type() -> None:
    for dtype, size in ((DType.F32, SIZE + 1), (DType.I64, SIZE)):
        e = Example()
        other = e.b.buffer("other", dtype, size)
        with e.b.parallel(("i",), (SIZE,)) as (i,):
            e.b.let(Load(other, i, ValueType(dtype)))
            e.b.store(e.y, i, Const(0.0, ValueType(DType.F32)))
        kernel = e.b.kernel()
        assert written_over(kernel, "other", "y", "joined") is None
        assert written_over(kernel, "y", "y", "joined") is None
        assert written_over(kernel, "x", "other", "joined") is None


def test_a_counter_with_too_many_values_is_not_tried() -> None:
    e = Example()
    with e.b.parallel(("band",), (5000,)) as (band,), e.b.when(IndexTest("lt", band, 12)):
        e.move(band * LANES)
    assert written_over(e.b.kernel(), "x", "y", "joined") is None

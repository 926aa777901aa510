"""One memory for what is read and what is written: where a kernel allows it, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import run_interpreter

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import OPPOSITE, UncountedError, combinations
from convdsl.kernel.in_place import updates_in_place, written_over
from convdsl.kernel.interpret import interpret
from convdsl.kernel.nodes import (
    Binary,
    Const,
    Gather,
    Get,
    IndexTest,
    Kernel,
    Load,
    LoopVar,
    ValueType,
)
from convdsl.kernel.scalar import FUNCTIONS
from convdsl.kernel.verify import verify_kernel
from convdsl.tensor import Dim, DType, dim_min, evaluate, floor_div

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


def of_threads() -> Kernel:
    """More threads than vectors: those beyond the last do nothing."""
    e = Example()
    with e.b.blocks(("block",), (4,)) as (block,), e.b.threads(("thread",), (5,)) as (thread,):
        number = block * 5 + thread
        with e.b.when(IndexTest("lt", number, SIZE // LANES)):
            e.move(number * LANES)
    return e.b.kernel()


def tiles() -> Kernel:
    """Rows of twelve as tiles of 3 x 2 vectors, some of which reach beyond the last row."""
    e = Example()
    grid = e.b.blocks(("down", "across"), (2, 2))
    with grid as (down, across), e.b.threads(("y", "x"), (3, 2)) as (y, x):
        row, column = down * 3 + y, across * 2 + x
        with e.b.when(IndexTest("lt", row, 4)), e.b.when(IndexTest("lt", column, 3)):
            e.move((row * 3 + column) * LANES)
    return e.b.kernel()


def ends_that_meet() -> Kernel:
    """The last block is shifted back; its threads store what the one before it does not."""
    e = Example()
    with e.b.blocks(("block",), (3,)) as (block,), e.b.threads(("thread",), (5,)) as (thread,):
        place = dim_min(block * 5, 7) + thread
        with e.b.when(IndexTest("ge", place, block * 5)):
            e.move(place * LANES)
    return e.b.kernel()


def rows(reads: int, first: int = 0, late: bool = False, stored: int = 4) -> Kernel:
    """Rows of four vectors: `reads` vectors from number `first` on are met, then `stored` are
    moved; all are met again, if `late`."""
    e = Example()
    with e.b.parallel(("row",), (3,)) as (row,):
        with e.b.serial("j", first + reads, first) as j:
            e.b.load(e.x, row * 16 + j * LANES)
        with e.b.serial("k", stored) as k:
            e.move(row * 16 + k * LANES)
        if late:
            with e.b.serial("l", reads) as again:
                e.b.load(e.x, row * 16 + again * LANES)
        with e.b.when(IndexTest("ge", row, 0)), e.b.serial("m", 4 - stored) as m:
            e.move(row * 16 + (m + stored) * LANES)
    return e.b.kernel()


def rows_met_twice() -> Kernel:
    """As a softmax does: all of a row is read before any of it is written."""
    return rows(4)


def two_rows_met_twice() -> Kernel:
    """The second row is read after the first one was written; ends are single elements."""
    e = Example()
    one = ValueType(DType.F32)
    with e.b.parallel(("pair",), (2,)) as (pair,):
        for row in range(2):
            start = pair * 24 + row * 12
            with e.b.serial("j", 2) as j:
                e.b.load(e.x, start + j * LANES)
            ends = [e.b.let(Load(e.x, start + 8 + i, one)) for i in range(4)]
            with e.b.serial("k", 2) as k:
                e.move(start + k * LANES)
            for i, end in enumerate(ends):
                e.b.store(e.y, start + 8 + i, Binary("add", end, Const(1.0, one)))
    return e.b.kernel()


def loads_first_where_they_are_inside(shift: int = 0) -> Kernel:
    """Two vectors of a thread, each inside under tests of its own, both loaded before a store."""
    e = Example()
    held = e.b.registers(2)
    with e.b.blocks(("block",), (2,)) as (block,), e.b.threads(("thread",), (4,)) as (thread,):
        places = [(block * 2 + j) * 4 + thread for j in range(2)]
        for slot, place in enumerate(places):
            test = IndexTest("lt", place + shift, SIZE // LANES)
            with e.b.when(test), e.b.when(IndexTest("ge", place, 0)):
                e.b.set(held, slot, e.b.load(e.x, place * LANES))
        for slot, place in enumerate(places):
            test = IndexTest("lt", place, SIZE // LANES)
            with e.b.when(test), e.b.when(IndexTest("ge", place, 0)):
                value = Binary("add", Get(held, slot), Const(1.0, F32X4))
                e.b.store(e.y, place * LANES, value)
    return e.b.kernel()


GOOD = (
    loads_first_where_they_are_inside,
    rows_met_twice,
    two_rows_met_twice,
    gathered,
    in_a_row,
    nested,
    unrolled,
    all_loads_first,
    two_grids,
    bands,
    by_cases,
    of_threads,
    tiles,
    ends_that_meet,
)


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


def read_by_all_threads() -> Kernel:
    """Two threads load, one of them stores: the other may come later."""
    e = Example()
    with e.b.blocks(("i",), (SIZE // LANES,)) as (i,), e.b.threads(("thread",), (2,)) as (thread,):
        value = e.b.load(e.x, i * LANES)
        with e.b.when(IndexTest("eq", thread, 0)):
            e.b.store(e.y, i * LANES, Binary("add", value, Const(1.0, value.type)))
    return e.b.kernel()


def stored_by_two_threads() -> Kernel:
    e = Example()
    with e.b.blocks(("block",), (3,)) as (block,), e.b.threads(("thread",), (5,)) as (thread,):
        e.move((dim_min(block * 5, 7) + thread) * LANES)
    return e.b.kernel()


def rows_of_others() -> Kernel:
    """The last vector that is met belongs to the next row."""
    return rows(4, first=1)


def rows_met_again_later() -> Kernel:
    return rows(4, late=True)


def rows_written_in_part() -> Kernel:
    """What is written under a test may be written by nobody."""
    return rows(4, stored=3)


def rows_as_long_as_their_number() -> Kernel:
    """What is met is not the same in all rows."""
    e = Example()
    with e.b.parallel(("row",), (3,)) as (row,):
        with e.b.serial("j", row * 4 + 1) as j:
            e.b.load(e.x, row * 16 + j)
        with e.b.serial("k", 4) as k:
            e.move(row * 16 + k * LANES)
    return e.b.kernel()


def loaded_where_nothing_is_stored() -> Kernel:
    """One vector is loaded under another test than it is stored under."""
    return loads_first_where_they_are_inside(shift=-1)


BAD = (
    loaded_where_nothing_is_stored,
    rows_of_others,
    rows_met_again_later,
    rows_written_in_part,
    rows_as_long_as_their_number,
    read_by_all_threads,
    stored_by_two_threads,
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


def test_counters_with_many_values() -> None:
    """Counted out by boxes, not one by one."""
    e = Example()
    with e.b.parallel(("band",), (5_000_000,)) as (band,), e.b.when(IndexTest("lt", band, 12)):
        e.move(band * LANES)
    assert written_over(e.b.kernel(), "x", "y", "joined") is not None


def test_what_depends_on_data_is_not_counted() -> None:
    e = Example()
    with e.b.parallel(("i",), (SIZE // LANES,)) as (i,):
        at = e.b.index(Const(3, ValueType(DType.I64)), SIZE // LANES)
        with e.b.when(IndexTest("eq", at, i)):
            e.move(i * LANES)
    assert written_over(e.b.kernel(), "x", "y", "joined") is None


names = ("a", "b", "c")
small = st.integers(1, 7)


@st.composite
def conditions(draw: st.DrawFn) -> tuple[dict[str, int], list[IndexTest]]:
    """Tests as schedules make them: of places in tiles, of rows in flat numbers."""
    extents = {name: draw(small) for name in names}
    a, b, c = (LoopVar(name, 0, extent - 1).i for name, extent in extents.items())
    places = [
        a * extents["b"] + b,
        a * draw(small) + b * draw(small) - c,
        dim_min(a * draw(small), draw(small)) + c,
        floor_div(a * extents["b"] + b, draw(small)),
        c,
    ]
    chosen = draw(st.lists(st.sampled_from(places), min_size=1, max_size=3))
    operations = st.sampled_from(sorted(OPPOSITE))
    return extents, [IndexTest(draw(operations), p, draw(st.integers(-1, 20))) for p in chosen]


@pytest.mark.dear(share=4)
@given(conditions())
@settings(max_examples=150, deadline=None)
def test_combinations_equal_counting_one_by_one(
    drawn: tuple[dict[str, int], list[IndexTest]],
) -> None:
    extents, tests = drawn
    box = {name: (0, extent - 1) for name, extent in extents.items()}
    places = [dict(zip(names, at, strict=True)) for at in np.ndindex(*extents.values())]
    expected = sum(
        all(FUNCTIONS[t.op].meaning(evaluate(t.a, at), evaluate(t.b, at)) for t in tests)
        for at in places
    )
    assert combinations(box, tests, 10_000) == expected


def test_large_boxes_are_halved_before_they_are_counted_out() -> None:
    a, b, c = (LoopVar(name, 0, 9_999).i for name in "abc")
    box = dict.fromkeys("abc", (0, 9_999))
    tests = [IndexTest("lt", a * 10_000 + b, 123_456), IndexTest("ge", c, 9_990)]
    assert combinations(box, tests, 200) == 1_234_560
    with pytest.raises(UncountedError):
        combinations(box, [IndexTest("eq", a, b)], 100)

"""Iterations that disturb each other are found, and only those: proof, enumeration, brute force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import pytest
from grids import block_sums, tiled_matmul
from hypothesis import given
from hypothesis import strategies as st

from convdsl.kernel.builder import Builder
from convdsl.kernel.independence import check_bounds, check_independent, is_proven_independent
from convdsl.kernel.nodes import (
    Binary,
    Const,
    For,
    If,
    IndexTest,
    Kernel,
    Load,
    Parallel,
    Statement,
    Store,
    ValueType,
    walk_statements,
)
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import Dim, DType, dim_min, evaluate, floor_div

F32 = ValueType(DType.F32)
ONE = Const(1.0, F32)
FOUR = Const(1.0, ValueType(DType.F32, 4))

Filling = Callable[[Builder], None]


def made(fill: Filling) -> Kernel:
    b = Builder("k", DType.F32, 4)
    fill(b)
    kernel = b.kernel()
    verify_kernel(kernel)
    return kernel


def rows_of_vectors(b: Builder) -> None:
    """Blocked along the channels: n, block and row in parallel, columns and lanes inside."""
    y = b.buffer("y", DType.F32, 2 * 3 * 5 * 7 * 4, written=True)
    with b.parallel(("n", "kb", "p"), (2, 3, 5)) as (n, kb, p), b.serial("q", 7) as q:
        b.store(y, (((n * 3 + kb) * 5 + p) * 7 + q) * 4, FOUR)


def tiles_apart(b: Builder) -> None:
    """Stores of one iteration lie between those of others."""
    y = b.buffer("y", DType.F32, 4 * 3 * 8, written=True)
    with b.parallel(("p",), (3,)) as (p,):
        for block in range(4):
            with b.serial("q", 8) as q:
                b.store(y, block * 24 + p * 8 + q, ONE)


def bands(b: Builder) -> None:
    """Pieces of unequal length, the last one cut off."""
    y = b.buffer("y", DType.F32, 10 * 4, written=True)
    with (
        b.parallel(("band",), (4,)) as (band,),
        b.serial("h", dim_min(band * 3 + 3, 10), band * 3) as h,
    ):
        b.store(y, h * 4, FOUR)


def even_bands(b: Builder) -> None:
    """Pieces shared out evenly: 17 among 5."""
    y = b.buffer("y", DType.F32, 17, written=True)
    with (
        b.parallel(("band",), (5,)) as (band,),
        b.serial("h", floor_div((band + 1) * 17, 5), floor_div(band * 17, 5)) as h,
    ):
        b.store(y, h, ONE)


def in_place(b: Builder) -> None:
    """Each iteration reads what it writes."""
    y = b.buffer("y", DType.F32, 6, written=True)
    with b.parallel(("p",), (6,)) as (p,):
        b.store(y, p, Binary("add", Load(y, p, F32), ONE))


def two_loops(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 6, written=True)
    with b.parallel(("p",), (3,)) as (p,):
        b.store(y, p * 2, ONE)
    with b.parallel(("p",), (3,)) as (p,):
        b.store(y, p * 2 + 1, ONE)


def first_band_only(b: Builder) -> None:
    """What is left over goes with one of the iterations."""
    y = b.buffer("y", DType.F32, 13, written=True)
    with b.parallel(("p",), (4,)) as (p,):
        with b.serial("i", 3) as i:
            b.store(y, p * 3 + i, ONE)
        with b.when(IndexTest("eq", p, 0)):
            b.store(y, 12, ONE)


def grid(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 30, written=True)
    with b.blocks(("block",), (4,)) as (block,), b.threads(("t",), (8,)) as (t,):
        at = block * 8 + t
        with b.when(IndexTest("lt", at, 30)):
            b.store(y, at, ONE)


def permuted(b: Builder) -> None:
    """A floor in the index: elements in another order, each still once."""
    y = b.buffer("y", DType.F32, 12, written=True)
    with b.parallel(("p",), (12,)) as (p,):
        b.store(y, p % 3 * 4 + floor_div(p, 3), ONE)


PROVEN = (
    rows_of_vectors,
    tiles_apart,
    bands,
    even_bands,
    in_place,
    two_loops,
    first_band_only,
    grid,
)
ENUMERATED = (permuted,)


@pytest.mark.parametrize("fill", PROVEN + ENUMERATED)
def test_independent(fill: Filling) -> None:
    kernel = made(fill)
    assert is_proven_independent(kernel) == (fill in PROVEN)
    check_independent(kernel)
    check_bounds(kernel)


@pytest.mark.parametrize("sizes", [(4, 4, 4), (5, 7, 9)])
def test_blocks_of_a_grid_are_independent(sizes: tuple[int, int, int]) -> None:
    for kernel in (tiled_matmul(*sizes), block_sums(sizes[2] * 20)):
        check_independent(kernel)
        check_bounds(kernel)


def overlapping_vectors(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 16, written=True)
    with b.parallel(("p",), (4,)) as (p,):
        b.store(y, p * 3, FOUR)


def one_for_all(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 4, written=True)
    with b.parallel(("p", "q"), (2, 2)) as (p, _):
        b.store(y, p, ONE)


def neighbour_read(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 8, written=True)
    with b.parallel(("p",), (7,)) as (p,):
        b.store(y, p, Load(y, p + 1, F32))


def neighbour_read_before(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 8, written=True)
    with b.parallel(("p",), (7,)) as (p,):
        b.store(y, p + 1, Load(y, p, F32))


def loops_that_meet(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 8, written=True)
    for _ in range(2):
        with b.parallel(("p",), (4,)) as (p,):
            b.store(y, p * 2, ONE)


def loop_reads_loop(b: Builder) -> None:
    """The second loop would have to wait for the first."""
    y = b.buffer("y", DType.F32, 4, written=True)
    z = b.buffer("z", DType.F32, 4, written=True)
    with b.parallel(("p",), (4,)) as (p,):
        b.store(y, p, ONE)
    with b.parallel(("p",), (4,)) as (p,):
        b.store(z, p, Load(y, 3 - p, F32))


def bands_too_long(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 13, written=True)
    with (
        b.parallel(("band",), (4,)) as (band,),
        b.serial("h", dim_min(band * 3 + 4, 12), band * 3) as h,
    ):
        b.store(y, h, ONE)


def outside_of_loops(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 4, written=True)
    b.store(y, 0, ONE)


def blocks_that_meet(b: Builder) -> None:
    y = b.buffer("y", DType.F32, 32, written=True)
    with b.blocks(("block",), (3,)) as (block,), b.threads(("t",), (8,)) as (t,):
        b.store(y, block * 7 + t, ONE)


DEPENDENT = {
    overlapping_vectors: r"iteration p = 1 writes y\[3\], which iteration p = 0 has written",
    one_for_all: r"iteration p = 0, q = 1 writes y\[0\], which iteration p = 0, q = 0 has written",
    neighbour_read: r"iteration p = 1 writes y\[1\], which iteration p = 0 has read",
    neighbour_read_before: r"iteration p = 0 writes y\[1\], which iteration p = 1 has read",
    loops_that_meet: r"iteration p_1 = 0 writes y\[0\], which iteration p = 0 has written",
    loop_reads_loop: r"iteration p = 0 writes y\[0\], which iteration p_1 = 3 has read",
    bands_too_long: r"iteration band = 1 writes y\[3\], which iteration band = 0 has written",
    outside_of_loops: "a store outside of parallel loops is made once for each share",
    blocks_that_meet: r"block block = 1 writes y\[7\], which block block = 0 has written",
}


@pytest.mark.parametrize("fill", DEPENDENT)
def test_dependent(fill: Filling) -> None:
    kernel = made(fill)
    assert not is_proven_independent(kernel)
    with pytest.raises(KernelError, match=f"^k: {DEPENDENT[fill]}"):
        check_independent(kernel)


def test_accesses_out_of_bounds_are_found_under_their_tests() -> None:
    def kernel(limit: int, reach: int) -> Kernel:
        def fill(b: Builder) -> None:
            x, y = b.buffer("x", DType.F32, 8), b.buffer("y", DType.F32, 9, written=True)
            with (
                b.parallel(("p",), (4,)) as (p,),
                b.serial("i", 3) as i,
                b.when(IndexTest("lt", p + i * 4, limit)),
            ):
                test = IndexTest("ge", p + i, 2)
                b.store(y, p + i * 4, Load(x, p + i - 2 + reach, F32, (test,)))

        return made(fill)

    check_bounds(kernel(9, 0))
    with pytest.raises(KernelError, match=r"iteration p = 1 writes y\[9:10\], out of bounds \(9\)"):
        check_bounds(kernel(10, 0))
    with pytest.raises(KernelError, match=r"iteration p = 3 reads x\[8:9\], out of bounds \(8\)"):
        check_bounds(kernel(9, 6))


# Drawn kernels, judged by executing every iteration in Python.


@st.composite
def ranges(draw: st.DrawFn, counters: Sequence[Dim]) -> tuple[Dim, Dim]:
    """(start, stop) of an inner loop: constant, as long as a counter says, or a band."""
    counter, length = draw(st.sampled_from(counters)), draw(st.integers(1, 5))
    match draw(st.sampled_from(("constant", "triangle", "band", "even bands"))):
        case "constant":
            return 0, length
        case "triangle":
            return 0, dim_min(counter + 1, length)
        case "band":
            step = draw(st.integers(1, 3))
            return counter * step, dim_min(counter * step + length, 12)
        case _:
            parts = draw(st.integers(2, 6))
            return floor_div(counter * 7, parts), floor_div(counter * 7 + 7, parts)


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    b = Builder("k", DType.F32, draw(st.sampled_from((1, 2, 4))))
    size = 4096
    y = b.buffer("y", DType.F32, size, written=True)
    names = ("p", "q")[: draw(st.integers(1, 2))]
    factors = st.sampled_from((0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 48, -1, -4))
    for _ in range(draw(st.integers(1, 2))):
        with b.parallel(names, [draw(st.integers(1, 5)) for _ in names]) as counters:
            start, stop = draw(ranges(counters))
            with b.serial("i", stop, start) as i:
                for _ in range(draw(st.integers(1, 3))):
                    index: Dim = draw(st.integers(1024, 1060))
                    for counter in (*counters, i):
                        index = index + counter * draw(factors)
                    lanes = ValueType(DType.F32, b.lanes)
                    write = draw(st.integers(0, 3))
                    value = Const(1.0, lanes) if write else Load(y, index, lanes)
                    with ExitStack() as stack:
                        if draw(st.integers(0, 2)) == 0:
                            test = IndexTest("eq", counters[0], draw(st.integers(0, 3)))
                            stack.enter_context(b.when(test))
                        b.store(y, index if write else 0, value)
    return b.kernel()


def brute_force(kernel: Kernel) -> bool:
    """Whether no iteration writes what another reads or writes."""
    touched: dict[tuple[int, bool], set[tuple[int, ...]]] = {}

    def run(body: tuple[Statement, ...], at: dict[str, int], owner: tuple[int, ...]) -> None:
        for statement in body:
            if isinstance(statement, Store):
                touch(statement.index, statement.value.type.lanes, True, at, owner)
                if isinstance(statement.value, Load):
                    touch(statement.value.index, statement.value.type.lanes, False, at, owner)
            elif isinstance(statement, If):
                if evaluate(statement.test.a, at) == evaluate(statement.test.b, at):
                    run(statement.then, at, owner)
            else:
                assert isinstance(statement, For)
                start, stop = evaluate(statement.start, at), evaluate(statement.stop, at)
                for i in range(start, stop):
                    run(statement.body, {**at, statement.var.name: i}, owner)

    def touch(
        index: Dim, lanes: int, write: bool, at: dict[str, int], owner: tuple[int, ...]
    ) -> None:
        for lane in range(lanes):
            touched.setdefault((evaluate(index, at) + lane, write), set()).add(owner)

    for number, loop in enumerate(kernel.body):
        assert isinstance(loop, Parallel)
        for position in np.ndindex(*loop.extents):
            counters = dict(zip([v.name for v in loop.vars], position, strict=True))
            run(loop.body, counters, (number, *position))
    return all(
        len(owners | touched.get((element, False), set())) == 1
        for (element, write), owners in touched.items()
        if write
    )


@pytest.mark.dear(share=4)
@given(kernels())
def test_proof_and_enumeration_agree_with_brute_force(kernel: Kernel) -> None:
    expected = brute_force(kernel)
    if is_proven_independent(kernel):
        assert expected
    try:
        check_independent(kernel)
        found = True
    except KernelError:
        found = False
    assert found == expected
    statements = list(walk_statements(kernel.body))
    stores = [s for s in statements if isinstance(s, Store)]
    constant = all(
        isinstance(s.start, int) and isinstance(s.stop, int)
        for s in statements
        if isinstance(s, For)
    )
    constant = constant and not any(isinstance(s, If) for s in statements)
    if expected and constant and len(stores) == 1 and isinstance(stores[0].value, Const):
        assert is_proven_independent(kernel), "between constant bounds the proof is exact"

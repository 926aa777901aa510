"""Operations of a grid, against those that are counted by hand."""

from __future__ import annotations

import pytest
from grids import TILE, block_sums, tiled_matmul

from convdsl.kernel.builder import Builder
from convdsl.kernel.nodes import Binary, Blocks, Compare, Const, IndexTest, Kernel, Load, ValueType
from convdsl.kernel.work import operations
from convdsl.tensor import DType

F32 = ValueType(DType.F32)
F32X4 = ValueType(DType.F32, 4)


def of(kernel: Kernel) -> int:
    return sum(operations(grid) for grid in kernel.body if isinstance(grid, Blocks))


@pytest.mark.parametrize(("m", "n", "k"), [(4, 4, 4), (5, 7, 9), (1, 1, 1)])
def test_a_product_does_whole_tiles(m: int, n: int, k: int) -> None:
    """A thread has an element of a tile, and passes whole tiles of the depth."""
    elements, depth = (-(-m // TILE) * -(-n // TILE) * TILE**2, -(-k // TILE) * TILE)
    assert of(tiled_matmul(m, n, k)) == 2 * elements * depth


def test_sums_of_blocks() -> None:
    """16 numbers a block: eight threads add two, and meet twice; then the first adds two groups."""
    assert of(block_sums(100)) == 7 * (8 * (1 + 2) + 2)


def vectors(blocks: int, threads: int, total: int) -> Kernel:
    """y = max(2 x, x < 0), of the threads that have something to do."""
    b = Builder("vectors", DType.F32, 4)
    x = b.buffer("x", DType.F32, 4 * total)
    y = b.buffer("y", DType.F32, 4 * total, written=True)
    with b.blocks(("block",), (blocks,)) as (block,), b.threads(("t",), (threads,)) as (t,):
        number = block * threads + t
        with b.when(IndexTest("lt", number, total)):
            value = b.let(Load(x, number * 4, F32X4))
            b.let(Compare("lt", value, Const(0.0, F32X4)))
            b.store(y, number * 4, Binary("mul", value, Const(2.0, F32X4)))
    return b.kernel()


def test_threads_that_do_nothing_are_not_counted() -> None:
    for total in (1, 999, 1000, 1023, 1024):
        assert of(vectors(16, 64, total)) == total * 8


def test_what_data_decide_is_taken_to_run() -> None:
    b = Builder("data", DType.F32, 1)
    y = b.buffer("y", DType.F32, 8, written=True)
    with b.blocks(("block",), (8,)) as (block,), b.threads(("t",), (1,)):
        at = b.index(Const(3, ValueType(DType.I64)), 8)
        with b.when(IndexTest("lt", at, 4)):
            b.store(y, block, Binary("add", Const(1.0, F32), Const(2.0, F32)))
    assert of(b.kernel()) == 8

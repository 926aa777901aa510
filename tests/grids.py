"""Kernels of blocks and threads for tests, right ones and such as have a known fault."""

from __future__ import annotations

from convdsl.kernel.builder import Builder
from convdsl.kernel.grid import Order, ascending, descending, shuffled
from convdsl.kernel.nodes import Binary, Const, Get, IndexTest, Kernel, Load, Value, ValueType
from convdsl.tensor import Dim, DType

F32 = ValueType(DType.F32)
ORDERS: dict[str, Order] = {
    "ascending": ascending,
    "descending": descending,
    "shuffled": shuffled(1),
    "shuffled otherwise": shuffled(2),
}
TILE = 4

MATMUL_FAULTS = {
    "no barrier before reading": r"thread .* reads ._tile\[\d+\], where nothing is stored yet",
    "no barrier before the next tile": r"thread .* (reads|writes) .*, with no barrier between",
    "barrier too late": r"thread .* reads ._tile\[\d+\], where nothing is stored yet",
    "tile half filled": r"thread .* reads b_tile\[\d+\], where nothing is stored yet",
    "tile one too small": r"(a_tile\[15:16\]|tile.*) is out of bounds",
    "no test of the last column": r"(out of bounds|, which block .* has written)",
    "blocks of one column": r"block .* writes c\[\d+\], which block .* has written",
    "threads of one row": r"thread .* writes a_tile\[\d+\], which thread .* has written",
}
"""What the interpreter must say of each."""


def tiled_matmul(m: int, n: int, k: int, fault: str = "") -> Kernel:
    """c = a @ b, row-major: a block of threads for each tile of c, one thread an element; tiles of
    a and b pass through shared memory."""
    b = Builder("matmul", DType.F32, 1)
    a_in, b_in = b.buffer("a", DType.F32, m * k), b.buffer("b", DType.F32, k * n)
    c = b.buffer("c", DType.F32, m * n, written=True)
    acc = b.registers(1, F32)
    tiles = [-(-extent // TILE) for extent in (m, n, k)]
    with b.blocks(("bi", "bj"), tiles[:2]) as (bi, bj):
        size = TILE * TILE - (fault == "tile one too small")
        a_tile, b_tile = b.shared("a_tile", size, alignment=16), b.shared("b_tile", TILE * TILE)
        with b.threads(("ti", "tj"), (TILE, TILE)) as (ti, tj):
            row, column = bi * TILE + ti, bj * TILE + tj
            place = ti * TILE + tj
            b.zero(acc)
            with b.serial("kt", tiles[2]) as kt:
                here = tj if fault == "threads of one row" else place
                b.store(a_tile, here, _within(a_in, (row, kt * TILE + tj), (m, k)))
                value = _within(b_in, (kt * TILE + ti, column), (k, n))
                if fault == "tile half filled":
                    with b.when(IndexTest("lt", ti, TILE // 2)):
                        b.store(b_tile, place, value)
                else:
                    b.store(b_tile, place, value)
                if fault not in ("no barrier before reading", "barrier too late"):
                    b.barrier()
                for step in range(TILE):
                    left = Load(a_tile, ti * TILE + step, F32)
                    b.accumulate(acc, 0, left, Load(b_tile, step * TILE + tj, F32))
                if fault == "barrier too late":
                    b.barrier()
                if fault != "no barrier before the next tile":
                    b.barrier()
            at = row * n + (tj if fault == "blocks of one column" else column)
            with b.when(IndexTest("lt", row, m)):
                if fault == "no test of the last column":
                    b.store(c, at, Get(acc, 0))
                else:
                    with b.when(IndexTest("lt", column, n)):
                        b.store(c, at, Get(acc, 0))
    return b.kernel()


def _within(buffer: object, at: tuple[Dim, Dim], shape: tuple[int, int]) -> Value:
    """An element of a matrix, zero outside."""
    tests = tuple(IndexTest("lt", i, extent) for i, extent in zip(at, shape, strict=True))
    return Load(buffer, at[0] * shape[1] + at[1], F32, tests)


def block_sums(size: int, threads: int = 8, group: int = 4) -> Kernel:
    """partial[block] = the sum of `2 * threads` elements of x: each thread adds two, groups of
    threads exchange theirs, and the first thread of the block adds what groups left in shared
    memory. The same kernel over `partial` is the second stage."""
    blocks = -(-size // (2 * threads))
    b = Builder(f"sums_{size}", DType.F32, 1)
    x = b.buffer("x", DType.F32, size)
    y = b.buffer("y", DType.F32, blocks, written=True)
    with b.blocks(("block",), (blocks,)) as (block,):
        left = b.shared("left", threads // group)
        with b.threads(("t",), (threads,)) as (t,):
            pair = [
                Load(x, at, F32, (IndexTest("lt", at, size),))
                for at in (block * 2 * threads + t, (block * 2 + 1) * threads + t)
            ]
            total = b.let(Binary("add", *pair))
            mask = group // 2
            while mask:
                total = b.let(Binary("add", total, b.exchange(total, mask, group)))
                mask //= 2
            with b.when(IndexTest("eq", t % group, 0)):
                b.store(left, t // group, total)
            b.barrier()
            with b.when(IndexTest("eq", t, 0)):
                acc: Value = Const(0.0, F32)
                for i in range(threads // group):
                    acc = Binary("add", acc, Load(left, i, F32))
                b.store(y, block, acc)
    return b.kernel()

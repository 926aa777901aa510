"""Blocks, threads, shared memory and barriers: what they compute, and faults that must be seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from grids import F32, MATMUL_FAULTS, ORDERS, block_sums, tiled_matmul
from kernels import print_kernel

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.builder import Builder
from convdsl.kernel.interpret import interpret
from convdsl.kernel.nodes import (
    Barrier,
    Blocks,
    Buffer,
    Const,
    Exchange,
    For,
    If,
    IndexAsValue,
    IndexTest,
    Kernel,
    Load,
    LoopVar,
    Parallel,
    Space,
    Statement,
    Store,
    Threads,
    ValueType,
    Var,
)
from convdsl.kernel.text import format_kernel
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType, dim_max

Array = np.ndarray[Any, Any]
each_order = pytest.mark.parametrize("order", ORDERS)


def run(kernel: Kernel, arrays: Mapping[str, Array], order: str = "ascending") -> dict[str, Array]:
    """What a kernel writes; elements that it does not write are NaN."""
    verify_kernel(kernel)
    written = {b.name: np.full(b.size, np.nan, b.dtype.numpy) for b in kernel.buffers if b.written}
    interpret(kernel, {**arrays, **written}, ORDERS[order])
    return written


def matrices(m: int, n: int, k: int) -> dict[str, Array]:
    random = np.random.default_rng(m * 100 + n * 10 + k)
    shapes = {"a": (m, k), "b": (k, n)}
    return {name: random.standard_normal(shape).astype("f4") for name, shape in shapes.items()}


@pytest.mark.drawn(share=4)
@each_order
@pytest.mark.parametrize("sizes", [(4, 4, 4), (8, 12, 8), (5, 7, 9), (1, 1, 1), (3, 9, 2)])
def test_a_matrix_product_through_shared_memory(sizes: tuple[int, int, int], order: str) -> None:
    arrays = matrices(*sizes)
    flat = {name: array.reshape(-1) for name, array in arrays.items()}
    found = run(tiled_matmul(*sizes), flat, order)["c"].reshape(sizes[:2])
    expected = arrays["a"].astype("f8") @ arrays["b"].astype("f8")
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@each_order
@pytest.mark.parametrize("size", [1, 15, 16, 17, 250])
def test_a_sum_in_two_stages(size: int, order: str) -> None:
    """The first stage leaves a sum for each block, the second is the same kernel over those."""
    x = np.random.default_rng(size).standard_normal(size).astype("f4")
    left = x
    while len(left) > 1 or left is x:
        left = run(block_sums(len(left)), {"x": left}, order)["y"]
    np.testing.assert_allclose(left, [x.astype("f8").sum()], rtol=1e-6, atol=1e-5)


@each_order
@pytest.mark.parametrize("fault", MATMUL_FAULTS)
def test_faults_are_seen_in_every_order(fault: str, order: str) -> None:
    kernel = tiled_matmul(6, 7, 8, fault)
    arrays = {name: array.reshape(-1) for name, array in matrices(6, 7, 8).items()}
    with pytest.raises(KernelError, match=f"^matmul: .*{MATMUL_FAULTS[fault]}"):
        run(kernel, arrays, order)


def test_shared_memory_starts_as_nan_in_each_block() -> None:
    """A block does not find what the block before it left."""
    b = Builder("k", DType.F32, 1)
    y = b.buffer("y", DType.F32, 2, written=True)
    with b.blocks(("block",), (2,)) as (block,):
        tile = b.shared("tile", 1)
        with b.threads(("t",), (1,)) as _:
            with b.when(IndexTest("eq", block, 0)):
                b.store(tile, 0, Const(1.0, F32))
            b.barrier()
            b.store(y, block, Load(tile, 0, F32))
    with pytest.raises(KernelError, match=r"thread t = 0 reads tile\[0\], where nothing is stored"):
        run(b.kernel(), {})


def test_threads_exchange_within_groups() -> None:
    b = Builder("k", DType.F32, 1)
    y = b.buffer("y", DType.F32, 16, written=True)
    with b.blocks((), ()), b.threads(("p", "q"), (4, 4)) as (p, q):
        number = IndexAsValue(p * 4 + q, 0, F32)
        b.store(y, p * 4 + q, b.exchange(number, 5, 8))
    assert run(b.kernel(), {})["y"].tolist() == [n ^ 5 for n in range(16)]


def test_a_barrier_orders_global_memory_of_a_block() -> None:
    def kernel(*, barrier: bool) -> Kernel:
        b = Builder("k", DType.F32, 1)
        y = b.buffer("y", DType.F32, 8, written=True)
        z = b.buffer("z", DType.F32, 8, written=True)
        with b.blocks(("block",), (2,)) as (block,), b.threads(("t",), (4,)) as (t,):
            b.store(y, block * 4 + t, IndexAsValue(t, 0, F32))
            if barrier:
                b.barrier()
            b.store(z, block * 4 + t, Load(y, block * 4 + 3 - t, F32))
        return b.kernel()

    assert run(kernel(barrier=True), {})["z"].tolist() == [3, 2, 1, 0] * 2
    race = r"thread t = 2 writes y\[2\], which thread t = 1 has read, with no barrier between"
    with pytest.raises(KernelError, match=race):
        run(kernel(barrier=False), {})
    race = r"thread t = 1 writes y\[5\], which thread t = 2 has read, with no barrier between"
    with pytest.raises(KernelError, match=race):
        run(kernel(barrier=False), {}, "descending")


T, BLOCK, LOOP = LoopVar("t", 0, 7), LoopVar("block", 0, 1), LoopVar("i", 0, 7)
TILE = Buffer("tile", DType.F32, 8, True, Space.SHARED)
Y = Buffer("y", DType.F32, 16, written=True)
ONE = Const(1.0, F32)
FIRST = IndexTest("lt", T.i, 4)


def in_threads(*body: Statement, shared: tuple[Buffer, ...] = (TILE,)) -> Statement:
    return Blocks((BLOCK,), (2,), shared, (Threads((T,), (8,), body),))


def kernel_of(*body: Statement) -> Kernel:
    return Kernel("k", (Y,), (), body)


def swap(mask: int, group: int) -> Exchange:
    return Exchange(Var("v", F32), ONE, mask, group)


FOUR = tuple(LoopVar(name, 0, 1) for name in "abcd")
REFUSED: dict[str, tuple[Statement, str]] = {
    "blocks in a loop": (For(LOOP, 0, 8, (in_threads(),)), "blocks inside another statement"),
    "threads alone": (Threads((T,), (8,), ()), "threads outside of blocks"),
    "threads in threads": (
        in_threads(Threads((LoopVar("u", 0, 1),), (2,), ())),
        "threads outside of blocks",
    ),
    "threads in a loop": (
        Blocks((BLOCK,), (2,), (), (For(LOOP, 0, 8, (Threads((T,), (8,), ()),)),)),
        "body of blocks is one loop over threads",
    ),
    "two loops over threads": (
        Blocks((BLOCK,), (2,), (), (Threads((T,), (8,), ()), Threads((T,), (8,), ()))),
        "body of blocks is one loop over threads",
    ),
    "parallel in threads": (in_threads(Parallel((), (), ())), "parallel loop inside"),
    "four axes": (Blocks(FOUR, (2,) * 4, (), (Threads((), (), ()),)), r"blocks over \(2, 2, 2, 2"),
    "no threads": (Blocks((BLOCK,), (2,), (), (Threads((T,), (0,), ()),)), r"threads over \(0,\)"),
    "barrier outside": (Barrier(), "barrier outside of threads"),
    "barrier of some": (in_threads(If(FIRST, (Barrier(),))), "barrier where not all threads come"),
    "barrier of the others": (
        in_threads(If(FIRST, (), (Barrier(),))),
        "barrier where not all threads come",
    ),
    "barrier in an uneven loop": (
        in_threads(For(LOOP, 0, T.i, (Barrier(),))),
        "barrier where not all threads come",
    ),
    "barrier in a loop with an uneven start": (
        in_threads(For(LOOP, dim_max(T.i - 4, 0), 8, (Barrier(),))),
        "barrier where not all threads come",
    ),
    "barrier under an uneven counter": (
        in_threads(
            For(LOOP, T.i, 8, (If(IndexTest("lt", LOOP.i, 4), (Barrier(),)),)),
        ),
        "barrier where not all threads come",
    ),
    "exchange of some": (in_threads(If(FIRST, (swap(1, 2),))), "exchange where not all threads"),
    "exchange of three": (in_threads(swap(1, 3)), "exchange 1 of 3 among 8 threads"),
    "exchange of too many": (in_threads(swap(1, 16)), "exchange 1 of 16 among 8 threads"),
    "exchange with another group": (in_threads(swap(4, 4)), "exchange 4 of 4 among 8 threads"),
    "foreign shared memory": (
        in_threads(Store(TILE, 0, ONE), shared=()),
        "tile is not shared memory of these blocks",
    ),
    "shared memory outside": (Store(TILE, 0, ONE), "tile is not shared memory of these blocks"),
    "global memory as shared": (in_threads(shared=(Y,)), "y cannot be shared memory"),
    "two of one name": (in_threads(shared=(TILE, TILE)), "tile cannot be shared memory"),
    "read before any store": (
        in_threads(Store(Y, 0, Load(TILE, 0, F32))),
        "tile is read before anything is stored in it",
    ),
    "shared memory out of bounds": (in_threads(Store(TILE, T.i + 8, ONE)), "out of bounds"),
    "exchange of another type": (
        in_threads(Exchange(Var("v", ValueType(DType.F64)), ONE, 1, 2)),
        "v: f64 != its value's type",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    statement, message = REFUSED[what]
    with pytest.raises(KernelError, match=f"^k: .*{message}"):
        verify_kernel(kernel_of(statement))


def test_a_grid_beside_a_parallel_loop_is_refused() -> None:
    with pytest.raises(KernelError, match="beside a parallel loop"):
        verify_kernel(kernel_of(in_threads(), Parallel((), (), ())))


ACCEPTED: dict[str, Statement] = {
    "barrier in an even loop": in_threads(For(LOOP, 0, 4, (Barrier(),))),
    "barrier in a loop of the block's": in_threads(For(LOOP, 0, BLOCK.i, (Barrier(),))),
    "barrier under a test of the block's": in_threads(
        If(IndexTest("lt", BLOCK.i, 1), (Barrier(),))
    ),
    "shared memory": in_threads(Store(TILE, T.i, ONE), Store(Y, T.i, Load(TILE, T.i, F32))),
    "no axes": Blocks((), (), (), (Threads((), (), (Store(Y, 0, ONE),)),)),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_accepted(what: str) -> None:
    verify_kernel(kernel_of(ACCEPTED[what]))


def test_threads_that_wait_in_vain_are_named() -> None:
    """What the verifier refuses is seen by the interpreter too."""
    body = Store(Y, BLOCK.i * 8 + T.i, ONE), If(FIRST, (Barrier(),))
    with pytest.raises(KernelError, match=r"thread t = 0 waits where thread t = 4 does not come"):
        interpret(kernel_of(in_threads(*body)), {"y": np.zeros(16, "f4")})
    one, other = Barrier(), Barrier()
    with pytest.raises(KernelError, match=r"thread t = 0 waits where thread t = 4 does not come"):
        interpret(kernel_of(in_threads(If(FIRST, (one,), (other,)))), {"y": np.zeros(16, "f4")})


def test_what_a_thread_does_alone_is_no_race() -> None:
    """A thread may read what it wrote, and threads may read one element."""
    b = Builder("k", DType.F32, 1)
    x, y = b.buffer("x", DType.F32, 1), b.buffer("y", DType.F32, 4, written=True)
    with b.blocks((), ()):
        tile = b.shared("tile", 4)
        with b.threads(("t",), (4,)) as (t,):
            b.store(tile, t, Load(x, 0, F32))
            b.store(tile, t, Load(tile, t, F32))
            b.store(y, t, Load(tile, t, F32))
    assert run(b.kernel(), {"x": np.ones(1, "f4")})["y"].tolist() == [1] * 4


def test_grids_of_one_kernel_are_not_ordered() -> None:
    store = Store(Y, T.i, ONE)
    kernel = kernel_of(
        Blocks((), (), (), (Threads((T,), (8,), (store,)),)),
        Blocks((), (), (), (Threads((T,), (8,), (store,)),)),
    )
    with pytest.raises(KernelError, match=r"block .* writes y\[0\], which block .* has written"):
        run(kernel, {})


def test_a_cpu_has_no_grid() -> None:
    with pytest.raises(KernelError, match="matmul: a grid, which a CPU has not"):
        print_kernel(tiled_matmul(4, 4, 4), find_target())


def test_grids_as_text(golden: Callable[[str, str], None]) -> None:
    text = "\n\n".join(map(format_kernel, (tiled_matmul(6, 7, 8), block_sums(40))))
    golden("loops/grids.txt", text + "\n")


def test_shared_memory_belongs_to_blocks() -> None:
    b = Builder("k", DType.F32, 1)
    with pytest.raises(ValueError, match="shared memory tile outside of blocks"):
        b.shared("tile", 4)

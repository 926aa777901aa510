"""Copies ahead and products of warps: what they compute, and faults that must be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from grids import ORDERS
from kernels import print_kernel
from tensor_units import F32, FAULTS, ZERO, warp_matmul

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.builder import Builder
from convdsl.kernel.interpret import interpret
from convdsl.kernel.mma import (
    BF16,
    COLUMNS,
    F16,
    FORMS,
    ROWS,
    SHORT_F16,
    TF32,
    WARP,
    MmaForm,
    sum_places,
)
from convdsl.kernel.nodes import (
    Blocks,
    Buffer,
    Const,
    CopyAsync,
    Get,
    If,
    IndexTest,
    Kernel,
    Load,
    LoopVar,
    Mma,
    Registers,
    Set,
    Space,
    Statement,
    Store,
    Threads,
    ValueType,
    WaitCopies,
)
from convdsl.kernel.text import format_kernel
from convdsl.kernel.verify import KernelError, verify_kernel
from convdsl.tensor import DType
from convdsl.tensor.conversion import convert, nearest_tf32

Array = np.ndarray[Any, Any]
each_form = pytest.mark.parametrize("form", FORMS, ids=str)


def matrices(m: int, n: int, k: int) -> tuple[Array, Array]:
    random = np.random.default_rng(m * 100 + n * 10 + k)
    return random.standard_normal((m, k)).astype("f4"), random.standard_normal((n, k)).astype("f4")


def filled(x: Array) -> Array:
    """Rows up to a multiple of four elements, the filling NaN."""
    more = -x.shape[1] % 4
    return np.pad(x, ((0, 0), (0, more)), constant_values=np.nan).reshape(-1)


def run(kernel: Kernel, x: Array, y: Array, order: str) -> Array:
    verify_kernel(kernel)
    c = np.full(len(x) * len(y), np.nan, "f4")
    arrays = {"a": filled(x), "b": filled(y), "c": c}
    interpret(kernel, arrays, ORDERS[order])
    return c.reshape(len(x), len(y))


def rounded(x: Array, form: MmaForm) -> Array:
    if form.dtype is DType.F32:
        return nearest_tf32(x).astype("f8")
    return convert(convert(x, DType.F32, form.dtype), form.dtype, DType.F64)


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@each_form
@pytest.mark.parametrize("sizes", [(32, 8, 16), (33, 9, 17), (5, 3, 50), (1, 1, 1)])
def test_a_product_of_matrices(sizes: tuple[int, int, int], form: MmaForm) -> None:
    x, y = matrices(*sizes)
    exact = rounded(x, form) @ rounded(y, form).T
    order = list(ORDERS)[sum(sizes) % len(ORDERS)]
    found = run(warp_matmul(form, *sizes), x, y, order)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_seen_in_every_order(fault: str, order: str) -> None:
    sizes = (33, 9, 60)
    with pytest.raises(KernelError, match=FAULTS[fault]):
        run(warp_matmul(TF32, *sizes, fault), *matrices(*sizes), order)


def test_rounding_to_tf32() -> None:
    step = 2.0**-10
    halves = np.array([1 + step / 2, -1 - step / 2, 1 + step * 1.5, 1 + step * 0.49], "f4")
    assert nearest_tf32(halves).tolist() == [1 + step, -1 - step, 1 + 2 * step, 1]
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], "f4")
    np.testing.assert_array_equal(nearest_tf32(odd).view("u4"), odd.view("u4"))


def test_what_is_not_rounded_is_cut_off() -> None:
    """A schedule that forgets to round loses twice as much."""
    form, below = TF32, 1 + 2.0**-10 - 2.0**-20
    b = Builder("k", DType.F32, 1)
    y = b.buffer("y", DType.F32, WARP, written=True)
    sums = b.registers(4, F32)
    with b.blocks((), ()), b.threads(("t",), (WARP,)) as (t,):
        b.zero(sums)
        one = [Const(1.0, F32)] * form.b_registers
        b.mma(form, sums, 0, [Const(below, F32)] * form.a_registers, one)
        b.store(y, t, Get(sums, 0))
    found = np.zeros(WARP, "f4")
    interpret(b.kernel(), {"y": found})
    assert found.tolist() == [8.0] * WARP


@each_form
def test_every_element_is_held_once(form: MmaForm) -> None:
    shapes = ((form.a_places, ROWS * form.k), (form.b_places, form.k * COLUMNS))
    for places, count in (*shapes, (sum_places, ROWS * COLUMNS)):
        held = [place for thread in range(WARP) for place in places(thread)]
        assert len(held) == len(set(held)) == count


# PTX ISA 8.5, 9.7.13.4.4, .6, .7 and .8: the rows and columns of a thread's elements as its
# figures give them, typed from there: (thread, element) -> (row, column).
FIGURES: dict[MmaForm, dict[str, dict[tuple[int, int], tuple[int, int]]]] = {
    SHORT_F16: {
        "a": {(0, 0): (0, 0), (0, 1): (0, 1), (0, 2): (8, 0), (5, 3): (9, 3), (31, 3): (15, 7)},
        "b": {(0, 0): (0, 0), (0, 1): (1, 0), (3, 0): (6, 0), (4, 0): (0, 1), (31, 1): (7, 7)},
    },
    TF32: {
        "a": {(0, 0): (0, 0), (0, 1): (8, 0), (0, 2): (0, 4), (0, 3): (8, 4), (31, 3): (15, 7)},
        "b": {(0, 0): (0, 0), (0, 1): (4, 0), (5, 0): (1, 1), (31, 1): (7, 7)},
    },
    F16: {
        "a": {(0, 1): (0, 1), (0, 2): (8, 0), (0, 4): (0, 8), (0, 6): (8, 8), (31, 7): (15, 15)},
        "b": {(0, 1): (1, 0), (0, 2): (8, 0), (1, 3): (11, 0), (31, 3): (15, 7)},
    },
    BF16: {
        "a": {(6, 0): (1, 4), (6, 3): (9, 5), (6, 5): (1, 13), (6, 7): (9, 13)},
        "b": {(6, 0): (4, 1), (6, 1): (5, 1), (6, 2): (12, 1), (6, 3): (13, 1)},
    },
}


@each_form
def test_fragments_lie_as_the_manual_says(form: MmaForm) -> None:
    for (thread, element), place in FIGURES[form]["a"].items():
        assert form.a_places(thread)[element] == place
    for (thread, element), place in FIGURES[form]["b"].items():
        assert form.b_places(thread)[element] == place
    assert sum_places(0) == [(0, 0), (0, 1), (8, 0), (8, 1)]
    assert sum_places(30) == [(7, 4), (7, 5), (15, 4), (15, 5)]


X = Buffer("x", DType.F32, 64)
Y = Buffer("y", DType.F32, 64, written=True)
TILE = Buffer("tile", DType.F32, 16, True, Space.SHARED)
SUMS = Registers("sums", 4, F32)
T = LoopVar("t", 0, WARP - 1)
FIRST = IndexTest("lt", T.i, 4)


def copy(**changed: Any) -> CopyAsync:
    usual: dict[str, Any] = {
        "target": TILE, "index": 0, "source": X, "source_index": 0, "elements": 4, "valid": 4,
    }  # fmt: skip
    return CopyAsync(**{**usual, **changed})


def mma(form: MmaForm = TF32, **changed: Any) -> Mma:
    element = Const(0.0, ValueType(form.dtype, form.lanes))
    a, b = (element,) * form.a_registers, (element,) * form.b_registers
    return Mma(**{"form": form, "sums": SUMS, "slot": 0, "a": a, "b": b, **changed})


def in_threads(*body: Statement, threads: int = WARP) -> Statement:
    t = LoopVar("t", 0, threads - 1)
    return Blocks((), (), (TILE,), (Threads((t,), (threads,), body),))


def zeros() -> list[Statement]:
    return [Set(SUMS, i, ZERO) for i in range(4)]


REFUSED: dict[str, tuple[Statement, str]] = {
    "mma outside": (mma(), "mma outside of threads"),
    "mma of some": (in_threads(*zeros(), If(FIRST, (mma(),))), "mma where not all threads come"),
    "mma of half a warp": (in_threads(*zeros(), mma(), threads=16), "mma .* among 16 threads"),
    "mma of an unknown form": (
        in_threads(*zeros(), mma(MmaForm(DType.F32, 4))),
        "mma m16n8k4.tf32 among",
    ),
    "mma with too few registers": (in_threads(*zeros(), mma(a=(ZERO,))), "takes 4 x f32 as a"),
    "mma of another type": (
        in_threads(*zeros(), mma(BF16, b=(ZERO,) * 2)),
        "takes 2 x bf16x2 as b",
    ),
    "mma on nothing": (in_threads(mma()), r"sums\[0\] is read before it is written"),
    "mma past the registers": (in_threads(*zeros(), mma(slot=1)), r"no register sums\[4\]"),
    "copy outside": (copy(), "copy outside of threads"),
    "copy back": (in_threads(copy(target=Y)), "copy from global to global memory"),
    "copy within": (in_threads(copy(source=TILE)), "copy from shared to shared memory"),
    "copy of three": (in_threads(copy(elements=3, valid=3)), "copy of 3 x f32"),
    "copy of more than there are": (in_threads(copy(valid=5)), "copy of 5 of 4 elements"),
    "copy beyond": (in_threads(copy(index=13)), "tile.* is out of bounds"),
    "copy from beyond": (in_threads(copy(source_index=61)), "x.* is out of bounds"),
    "copy of another type": (
        in_threads(copy(source=Buffer("i", DType.U32, 64))),
        "copy of u32 to f32",
    ),
    "wait for less than all": (in_threads(WaitCopies(-1)), "a wait until -1 copies are left"),
    "wait for what is no group": (
        in_threads(copy(), WaitCopies(0), Store(Y, T.i, Load(TILE, 0, F32))),
        "tile is read before its copies are waited for",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_refused(what: str) -> None:
    statement, message = REFUSED[what]
    with pytest.raises(KernelError, match=f"^k: .*{message}"):
        verify_kernel(Kernel("k", (X, Y), (SUMS,), (statement,)))


def test_a_cpu_has_neither() -> None:
    with pytest.raises(KernelError, match="a grid, which a CPU has not"):
        print_kernel(warp_matmul(TF32, 16, 8, 8), find_target())


def test_as_text(golden: Callable[[str, str], None]) -> None:
    text = "\n\n".join(format_kernel(warp_matmul(form, 20, 9, 18)) for form in (TF32, BF16))
    golden("loops/tensor_units.txt", text + "\n")

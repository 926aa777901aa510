"""A product of matrices by warps, its factors copied ahead; right, and with known faults."""

from __future__ import annotations

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.mma import COLUMNS, ROWS, MmaForm
from convdsl.kernel.nodes import (
    Buffer,
    Cast,
    Const,
    Get,
    IndexTest,
    Kernel,
    Load,
    Value,
    ValueType,
)
from convdsl.tensor import Dim, DType, dim_max, dim_min, floor_div

F32 = ValueType(DType.F32)
ZERO = Const(0.0, F32)
WARPS = 2  # below each other in a block
STAGES = 3

FAULTS = {
    "no wait": "is read before its copies are waited for",
    "wait off by one": "(where nothing is stored yet|with no barrier between)",
    "no barrier after the wait": "(where nothing is stored yet|with no barrier between)",
    "copy into what is read": "(where nothing is stored yet|with no barrier between)",
    "store into what is copied": "is written while it is copied to",
    "copies left open": "ends before its copies to",
    "no test of the last row": "out of bounds",
}
"""What the verifier or the interpreter must say of each."""


def warp_matmul(form: MmaForm, m: int, n: int, k: int, fault: str = "") -> Kernel:
    """c = a @ b^T of f32 matrices [m][k] and [n][k]; copies of four elements, the last one cut
    where k ends within it (rows begin at multiples of four)."""
    b = Builder("matmul", DType.F32, 1)
    wide = -(-k // 4) * 4  # from row to row
    a_in, b_in = b.buffer("a", DType.F32, m * wide), b.buffer("b", DType.F32, n * wide)
    c = b.buffer("c", DType.F32, m * n, written=True)
    sums = b.registers(4, F32)
    rows, depth = WARPS * ROWS, form.k
    steps, ahead = -(-k // depth), STAGES - 1 + (fault == "copy into what is read")
    with b.blocks(("bi", "bj"), (-(-m // rows), -(-n // COLUMNS))) as (bi, bj):
        a_tile = b.shared("a_tile", STAGES * rows * depth, alignment=16)
        b_tile = b.shared("b_tile", STAGES * COLUMNS * depth, alignment=16)
        with b.threads(("warp", "g", "t"), (WARPS, 8, 4)) as (warp, g, t):
            row, pieces = warp * 8 + g, depth // 4

            def begin(step: Dim) -> None:
                stage = step - floor_div(step, STAGES) * STAGES
                for i in range(rows // (WARPS * 8)):
                    own = row + i * WARPS * 8
                    piece(a_in, a_tile, stage * rows + own, bi * rows + own, m, step)
                with b.when(IndexTest("lt", row, COLUMNS)):
                    piece(b_in, b_tile, stage * COLUMNS + row, bj * COLUMNS + row, n, step)
                b.commit_copies()

            def piece(
                source: Buffer, tile: Buffer, to: Dim, line: Dim, lines: int, step: Dim
            ) -> None:
                with b.when(IndexTest("lt", t, pieces)):
                    at = step * depth + t * 4
                    tests = [] if fault == "no test of the last row" else [_lt(line, lines)]
                    left = dim_max(dim_min(k - at, 4), 0)
                    where = (source, line * wide + at)
                    b.copy((tile, to * depth + t * 4), where, 4, [*tests, _lt(at, k)], left)

            def fragment(tile: Buffer, line: Dim, register: int) -> Value:
                at = line * depth + (t + 4 * register) * form.lanes
                pair = Load(tile, at, ValueType(DType.F32, form.lanes))
                if form.dtype is DType.F32:
                    rounded = ValueType(DType.TF32, form.lanes)
                    return Cast(Cast(pair, rounded), pair.type)
                return Cast(pair, ValueType(form.dtype, form.lanes))

            b.zero(sums)
            for step in range(ahead):
                begin(step)
            with b.serial("step", steps) as step:
                if fault != "no wait":
                    b.wait_copies(ahead - (fault != "wait off by one"))
                if fault != "no barrier after the wait":
                    b.barrier()
                stage = step - floor_div(step, STAGES) * STAGES
                lines = [stage * rows + warp * ROWS + g + 8 * i for i in (0, 1)]
                a = [b.let(fragment(a_tile, lines[i % 2], i // 2)) for i in range(form.a_registers)]
                own = stage * COLUMNS + g
                right = [b.let(fragment(b_tile, own, i)) for i in range(form.b_registers)]
                b.mma(form, sums, 0, a, right)
                if fault == "store into what is copied":
                    here = (step + 1 - floor_div(step + 1, STAGES) * STAGES) * rows
                    with b.when(IndexTest("eq", row * 4 + t, 0)):
                        b.store(a_tile, here * depth, ZERO)
                begin(step + ahead)
            if fault != "copies left open":
                b.wait_copies(0)
            for i in range(4):
                at = bi * rows + warp * ROWS + g + 8 * (i // 2), bj * COLUMNS + t * 2 + i % 2
                tests = _lt(at[0], m), _lt(at[1], n)
                if all(decide(test) is not False for test in tests):
                    with b.when(tests[0]), b.when(tests[1]):
                        b.store(c, at[0] * n + at[1], Get(sums, i))
    return b.kernel()


def _lt(a: Dim, b: Dim) -> IndexTest:
    return IndexTest("lt", a, b)

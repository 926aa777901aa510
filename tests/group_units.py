"""A product of matrices by warp groups, its factors copied ahead; right, and with known faults."""

from __future__ import annotations

from convdsl.kernel.builder import Builder
from convdsl.kernel.counting import decide
from convdsl.kernel.group_mma import ATOM, GROUP_ROWS, GroupForm
from convdsl.kernel.mma import COLUMNS, ROWS
from convdsl.kernel.nodes import Const, Get, IndexTest, Kernel, ValueType
from convdsl.tensor import Dim, DType, dim_max, dim_min, floor_div

F32 = ValueType(DType.F32)
STAGES = 4

FAULTS = {
    "no wait for copies": "is multiplied before it is shown",
    "wait for copies off by one": "where nothing is stored yet|with no barrier between",
    "no barrier": "where nothing is stored yet|with no barrier between|before it is shown",
    "not shown": "is multiplied before it is shown",
    "shown after the barrier": "is multiplied before it is shown",
    "products not opened": "is added to before products are opened",
    "sums read early": "is touched before its products are waited for",
    "sums set early": "is touched before its products are waited for",
    "no wait for products": "is touched before its products are waited for",
    "a step further ahead": "is read|is written|where nothing is stored yet|with no barrier",
    "store into what is multiplied": "is written while it is multiplied|with no barrier between",
    "products not committed": "is touched before its products|ends before its products",
}
"""What the verifier or the interpreter must say of each."""


def group_matmul(
    form: GroupForm, m: int, n: int, k: int, fault: str = "", groups: int = 2
) -> Kernel:
    """c = a @ b^T of matrices [m][k] and [n][k], whose rows begin at multiples of 16 bytes; the
    last copy of a row is cut where k ends within it. `groups` are below each other in a block."""
    dtype = DType.TF32 if form.dtype is DType.F32 else form.dtype
    each = 16 // dtype.bytes
    b = Builder("matmul", DType.F32, 1)
    wide = -(-k // each) * each  # from row to row
    a_in, b_in = b.buffer("a", dtype, m * wide), b.buffer("b", dtype, n * wide)
    c = b.buffer("c", DType.F32, m * n, written=True)
    sums = b.registers(form.sums, F32)
    rows, columns, line = groups * GROUP_ROWS, form.columns, form.line
    steps, ahead = -(-k // line), STAGES - 2 + (fault == "a step further ahead")
    with b.blocks(("bi", "bj"), (-(-m // rows), -(-n // columns))) as (bi, bj):
        a_tile = b.shared("a_tile", STAGES * rows * line, dtype, alignment=ATOM)
        b_tile = b.shared("b_tile", STAGES * columns * line, dtype, alignment=ATOM)
        with b.threads(("warp", "y", "x"), (4 * groups, 4, 8)) as (warp, y, x):
            own = warp * 4 + y  # of 32 rows that are copied at a time

            def stage_of(step: Dim) -> Dim:
                return step - floor_div(step, STAGES) * STAGES

            def begin(step: Dim) -> None:
                for source, tile, count, first, lines in (
                    (a_in, a_tile, rows, bi * rows, m),
                    (b_in, b_tile, columns, bj * columns, n),
                ):
                    for start in range(0, count, 16 * groups):
                        row = own + start
                        at = step * line + x * each
                        to = (stage_of(step) * count + row) * line + turned(x, row) * each
                        tests = _lt(first + row, lines), _lt(at, k)
                        left = dim_max(dim_min(k - at, each), 0)
                        b.copy((tile, to), (source, (first + row) * wide + at), each, tests, left)
                b.commit_copies()

            def multiply(step: Dim) -> None:
                here = stage_of(step)
                if fault != "products not opened":
                    b.open_products()
                for depth in range(0, line, form.k):
                    first = (here * groups + floor_div(warp, 4)) * GROUP_ROWS * line + depth
                    second = here * columns * line + depth
                    b.group_mma(form, sums, 0, (a_tile, first), (b_tile, second))
                if fault != "products not committed":
                    b.commit_products()

            b.zero(sums)
            for step in range(ahead):
                begin(step)
            with b.serial("step", steps) as step:
                if fault != "no wait for copies":
                    b.wait_copies(ahead - (fault != "wait for copies off by one"))
                if fault not in ("not shown", "shown after the barrier"):
                    b.show_products()
                if fault != "no barrier":
                    b.barrier()
                if fault == "shown after the barrier":
                    b.show_products()
                multiply(step)
                if fault == "sums set early":
                    b.set(sums, 0, Const(0.0, F32))
                if fault == "store into what is multiplied":
                    with b.when(IndexTest("eq", (warp * 4 + y) * 8 + x, 5)):
                        b.store(
                            a_tile, stage_of(step) * rows * line + 40, Const(0.0, ValueType(dtype))
                        )
                begin(step + ahead)
                b.wait_products(1)
            b.wait_copies(0)
            if fault == "sums read early":
                b.store(c, 0, Get(sums, 0))
            if fault != "no wait for products":
                b.wait_products(0)
            g, t = y * 2 + floor_div(x, 4), x - floor_div(x, 4) * 4
            for i in range(form.sums):
                row = bi * rows + warp * ROWS + g + 8 * (i // 2 % 2)
                column = bj * columns + COLUMNS * (i // 4) + t * 2 + i % 2
                tests = _lt(row, m), _lt(column, n)
                if all(decide(test) is not False for test in tests):
                    with b.when(tests[0]), b.when(tests[1]):
                        b.store(c, row * n + column, Get(sums, i))
    return b.kernel()


def group_matmul_across(form: GroupForm, m: int, n: int, k: int) -> Kernel:
    """c = a^T @ b of matrices [k][m] and [k][n] of halves, whose rows begin at multiples of 16
    bytes, by one group: lines hold neighbours of a row, 64 depths make a step."""
    each, deep = 16 // form.dtype.bytes, form.across
    b = Builder("matmul_across", DType.F32, 1)
    wide = [-(-size // each) * each for size in (m, n)]
    a_in, b_in = (b.buffer(x, form.dtype, k * w) for x, w in zip("ab", wide, strict=True))
    c = b.buffer("c", DType.F32, m * n, written=True)
    sums = b.registers(form.sums, F32)
    rows, columns = GROUP_ROWS, form.columns
    with b.blocks(("bi", "bj"), (-(-m // rows), -(-n // columns))) as (bi, bj):
        tiles = [
            b.shared(name, STAGES * size * deep, form.dtype, alignment=ATOM)
            for name, size in (("a_tile", rows), ("b_tile", columns))
        ]
        with b.threads(("warp", "y", "x"), (4, 4, 8)) as (warp, y, x):

            def begin(step: Dim) -> None:
                here = step - floor_div(step, STAGES) * STAGES
                for source, tile, count, tile_at, size, apart in zip(
                    (a_in, b_in), tiles, (rows, columns), (bi, bj), (m, n), wide, strict=True
                ):
                    for block in range(0, count, form.line):
                        for start in range(0, deep, 16):
                            line = warp * 4 + y + start
                            at = tile_at * count + block + x * each
                            to = here * count * deep + form.at(block, line) + turned(x, line) * each
                            depth = step * deep + line
                            left = dim_max(dim_min(size - at, each), 0)
                            b.copy(
                                (tile, to), (source, depth * apart + at), each,
                                (_lt(depth, k), _lt(at, size)), left,
                            )  # fmt: skip
                b.commit_copies()

            b.zero(sums)
            for step in range(STAGES - 2):
                begin(step)
            with b.serial("step", -(-k // deep)) as step:
                here = step - floor_div(step, STAGES) * STAGES
                b.wait_copies(STAGES - 3)
                b.show_products()
                b.barrier()
                b.open_products()
                for depth in range(0, deep, form.k):
                    first, second = (here * s * deep + form.at(0, depth) for s in (rows, columns))
                    b.group_mma(form, sums, 0, (tiles[0], first), (tiles[1], second))
                b.commit_products()
                begin(step + STAGES - 2)
                b.wait_products(1)
            b.wait_copies(0)
            b.wait_products(0)
            g, t = y * 2 + floor_div(x, 4), x - floor_div(x, 4) * 4
            for i in range(form.sums):
                row = bi * rows + warp * ROWS + g + 8 * (i // 2 % 2)
                column = bj * columns + COLUMNS * (i // 4) + t * 2 + i % 2
                with b.when(_lt(row, m)), b.when(_lt(column, n)):
                    b.store(c, row * n + column, Get(sums, i))
    return b.kernel()


def turned(piece: Dim, row: Dim) -> Dim:
    """piece ^ (row % 8), by sums: of two bits a + b - 2 a b."""
    made: Dim = 0
    for bit in range(3):
        a, b = (_bit(number, bit) for number in (piece, row))
        made = made + (a + b - 2 * a * b) * 2**bit
    return made


def _bit(number: Dim, bit: int) -> Dim:
    return floor_div(number, 2**bit) - floor_div(number, 2 ** (bit + 1)) * 2


def _lt(a: Dim, b: Dim) -> IndexTest:
    return IndexTest("lt", a, b)

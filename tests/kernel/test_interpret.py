"""The loop interpreter: strict where machine code would go on, and equal to it elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kernels import program_of, run_interpreter, run_machine_code

from convdsl.kernel.builder import Builder
from convdsl.kernel.interpret import interpret, interpret_program
from convdsl.kernel.nodes import (
    Binary,
    Buffer,
    Cast,
    Compare,
    Const,
    Fma,
    For,
    Gather,
    Get,
    If,
    IndexAsValue,
    IndexTest,
    Kernel,
    Load,
    LoopVar,
    ReduceLanes,
    Select,
    Splat,
    Store,
    Unary,
    Value,
    ValueType,
)
from convdsl.kernel.program import Access, Argument, Place
from convdsl.kernel.verify import KernelError
from convdsl.tensor import DType, dim_max, floor_div, symbol

F32 = ValueType(DType.F32)
LANES = 4
X = Buffer("x", DType.F32, 16)


def storing(value: Value, index: int = 0, size: int = LANES) -> Kernel:
    y = Buffer("y", value.type.dtype, size, written=True)
    return Kernel("k", (X, y), (), (Store(y, index, value),))


def load(start: int, lanes: int = LANES) -> Load:
    return Load(X, start, ValueType(DType.F32, lanes))


def test_out_of_bounds() -> None:
    x = {"x": np.zeros(16, np.float32)}
    far = symbol("i", minimum=0, maximum=100)
    i = LoopVar("i", 0, 100)
    y = Buffer("y", DType.F32, 4, written=True)
    for body, where in (
        (Store(y, 0, Load(X, far, F32)), r"x\[16:17\]"),
        (Store(y, far, load(0, 2)), r"y\[3:5\]"),
        (Store(y, far - 1, load(0, 1)), r"y\[-1:0\]"),
    ):
        kernel = Kernel("k", (X, y), (), (For(i, 0, 101, (body,)),))
        with pytest.raises(KernelError, match=f"k: {where} is out of bounds"):
            run_interpreter(kernel, x)


def test_a_loop_must_stay_in_its_stated_range() -> None:
    y = Buffer("y", DType.F32, 16, written=True)
    loop = For(LoopVar("i", 0, 3), 0, 5, (Store(y, 0, Const(1.0, F32)),))
    with pytest.raises(KernelError, match="i = 4 outside its stated range"):
        run_interpreter(Kernel("k", (X, y), (), (loop,)), {"x": np.zeros(16, np.float32)})


@pytest.mark.parametrize("array", [np.zeros(15, np.float32), np.zeros(16), np.zeros((4, 4), "f4")])
def test_buffers_must_fit(array: np.ndarray) -> None:
    kernel = storing(load(0))
    with pytest.raises(KernelError, match="x: .* does not fit"):
        interpret(kernel, {"x": array, "y": np.zeros(4, np.float32)})


def test_memory_that_nothing_wrote_is_nan() -> None:
    """What a kernel leaves out of what it should have written shows in the result."""
    program = program_of(storing(Binary("add", load(0), load(4))))
    (reader,) = program.steps
    y = Buffer("y", DType.F32, 16, written=True)
    part = Kernel("part", (X, y), (), (Store(y, 0, load(0)),))
    arena = Argument(Place.ARENA, access=Access.WRITE)
    first = replace(reader, kernel="part", arguments=(reader.arguments[0], arena))
    then = replace(reader, arguments=(Argument(Place.ARENA), reader.arguments[1]))
    program = replace(
        program, kernels=(*program.kernels, part), steps=(first, then), arena_bytes=64
    )
    (found,) = interpret_program(program, np.empty(0, np.uint8), [np.ones(16, np.float32)])
    assert np.isnan(found).all()


def test_parts_of_a_vector_are_stored_alone() -> None:
    y = Buffer("y", DType.F32, 8, written=True)
    kernel = Kernel("k", (X, y), (), (Store(y, 1, load(0), valid=3),))
    arrays = {"x": np.arange(1, 17, dtype=np.float32)}
    expected = [0, 1, 2, 3, 0, 0, 0, 0]
    assert run_interpreter(kernel, arrays)["y"].tolist() == expected
    assert run_machine_code(kernel, arrays)["y"][1:4].tolist() == [1, 2, 3]


A, B, C = load(0), load(4), load(8)
N = ValueType(DType.I64, LANES)
FLAGS = ValueType(DType.BOOL, LANES)
VALUES: dict[str, Value] = {
    **{op: Binary(op, A, B) for op in ("add", "sub", "mul", "div", "max", "min", "copysign")},
    **{op: Unary(op, A) for op in ("neg", "abs", "floor", "ceil", "round")},
    **{op: Unary(op, Unary("abs", A)) for op in ("sqrt", "exponent", "mantissa")},
    "pow2": Unary("pow2", Unary("floor", A)),
    "lift": Binary("lift", A, B),
    "pow2_lifted": Unary("pow2_lifted", Binary("lift", A, B)),
    "scale": Binary("scale", Unary("mantissa", Unary("abs", A)), Unary("floor", B)),
    "isnan": Unary("isnan", Unary("sqrt", A)),
    "not": Unary("not", Compare("lt", A, B)),
    **{op: Compare(op, A, B) for op in ("lt", "le", "gt", "ge", "eq", "ne")},
    **{op: Binary(op, Compare("lt", A, B), Compare("lt", B, C)) for op in ("and", "or", "xor")},
    "fma": Fma(A, B, C),
    "select": Select(Compare("lt", A, B), C, A),
    "select by one": Select(IndexTest("lt", 1, 2), C, A),
    "splat": Splat(load(5, 1), A.type),
    "gather": Gather(tuple(load(i, 1) for i in (7, 0, 3, 3)), A.type),
    "reduce sum": ReduceLanes("sum", A),
    "reduce max": ReduceLanes("max", A),
    "reduce min": ReduceLanes("min", A),
    "index": IndexAsValue(5, 3, N),
    "index as float": IndexAsValue(5, 3, A.type),
    "to integers": Cast(A, N),
    "to bool": Cast(Unary("floor", A), FLAGS),
    "to double": Cast(A, ValueType(DType.F64, LANES)),
    "from integers": Cast(IndexAsValue(-7, 3, N), A.type),
    "from bool": Cast(Compare("lt", A, B), A.type),
    **{
        f"integer {op}": Binary(op, IndexAsValue(-7, 3, N), Const(3, N))
        for op in ("add", "sub", "mul", "max", "min")
    },
    "integer abs": Unary("abs", IndexAsValue(-7, 3, N)),
    "integer neg": Unary("neg", IndexAsValue(-7, 3, N)),
    "max with a constant": Binary("max", A, Const(0.5, A.type)),
    "min with a constant": Binary("min", Const(0.5, A.type), A),
    "guard holds": Load(X, 4, A.type, (IndexTest("lt", 1, 2),), 9.0),
    "guard fails": Load(X, 40, A.type, (IndexTest("lt", 2, 1),), 9.0),
}


@pytest.mark.dear
@pytest.mark.parametrize("what", VALUES)
def test_every_value_equals_machine_code(what: str) -> None:
    random = np.random.default_rng(3)
    x = (random.standard_normal(16) * 3).astype(np.float32)
    x[4] = x[0]  # something equal
    value = VALUES[what]
    kernel = storing(value, size=value.type.lanes)
    slow, fast = (run(kernel, {"x": x})["y"] for run in (run_interpreter, run_machine_code))
    assert slow.dtype == fast.dtype == np.dtype(value.type.dtype.numpy)
    np.testing.assert_allclose(fast, slow, rtol=2e-7 if value.type.dtype.is_float else 0)


@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("constant", [False, True])
def test_extrema_hand_nan_on(op: str, constant: bool) -> None:
    x = np.array([np.nan, 1, np.nan, -1, 2, np.nan, np.nan, 0, *[0] * 8], np.float32)
    other = Const(0.0, A.type) if constant else B
    kernel = storing(Binary(op, A, other))
    slow, fast = (run(kernel, {"x": x})["y"] for run in (run_interpreter, run_machine_code))
    np.testing.assert_array_equal(slow, fast)
    assert np.isnan(slow).tolist() == [True, not constant, True, False]


def test_statements_equal_machine_code() -> None:
    """Loops with bounds from outer loops, branches, registers, floors and maxima of indices."""
    b = Builder("k", DType.F32, LANES)
    x, y = b.buffer("x", DType.F32, 16), b.buffer("y", DType.F32, 24, written=True)
    acc = b.registers(1, F32)
    with b.parallel(("p", "q"), (6, 4)) as (p, q):
        b.set(acc, 0, Const(0.0, F32))
        with b.serial("i", dim_max(q - 1, 0) + 2, floor_div(q, 2)) as i, b.serial("j", i + 1) as j:
            weight = IndexAsValue(floor_div(p - 3, 2) * 10 + j, 0, F32)
            b.accumulate(acc, 0, Load(x, i + p, F32), weight)
        with b.when(IndexTest("ge", p, q)):
            b.set(acc, 0, Unary("neg", Get(acc, 0)))
        b.store(y, p * 4 + q, Get(acc, 0))
    arrays = {"x": np.arange(16, dtype=np.float32)}
    slow, fast = (run(b.kernel(), arrays)["y"] for run in (run_interpreter, run_machine_code))
    np.testing.assert_array_equal(slow, fast)
    expected = np.zeros((6, 4))
    for p, q in np.ndindex(6, 4):
        terms = [
            (i + p) * ((p - 3) // 2 * 10 + j)
            for i in range(q // 2, max(q - 1, 0) + 2)
            for j in range(i + 1)
        ]
        expected[p, q] = -sum(terms) if p >= q else sum(terms)
    np.testing.assert_array_equal(slow, expected.reshape(-1))


def test_both_arms_of_a_branch() -> None:
    y = Buffer("y", DType.F32, 2, written=True)
    i = LoopVar("i", 0, 1)
    test = IndexTest("eq", i.i, 0)
    one, two = Store(y, i.i, Const(1.0, F32)), Store(y, i.i, Const(2.0, F32))
    kernel = Kernel("k", (X, y), (), (For(i, 0, 2, (If(test, (one,), (two,)),)),))
    arrays = {"x": np.zeros(16, np.float32)}
    for run in (run_interpreter, run_machine_code):
        assert run(kernel, arrays)["y"].tolist() == [1, 2]


def test_registers_keep_their_values_between_loops() -> None:
    b = Builder("k", DType.F32, LANES)
    b.buffer("x", DType.F32, 16)
    y = b.buffer("y", DType.F32, 2, written=True)
    acc = b.registers(2, F32)
    b.zero(acc)
    with b.serial("i", 5):
        b.set(acc, 0, Binary("add", Get(acc, 0), Const(1.0, F32)))
    b.set(acc, 1, Binary("mul", Get(acc, 0), Const(2.0, F32)))
    for slot in range(2):
        b.store(y, slot, Get(acc, slot))
    arrays = {"x": np.zeros(16, np.float32)}
    for run in (run_interpreter, run_machine_code):
        assert run(b.kernel(), arrays)["y"].tolist() == [5, 10]

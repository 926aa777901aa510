"""Scalar functions over their whole ranges: machine code and interpreter against the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from executors import machine_code, run_graph, runs_here
from graphs import Builder as GraphBuilder
from kernels import run_interpreter, run_machine_code
from truths import errors, everywhere, flushed, truth

from convdsl.backends.llvm.objects import find_target
from convdsl.kernel.builder import Builder
from convdsl.kernel.formula import functions_of, read
from convdsl.kernel.nodes import (
    Const,
    Kernel,
    Load,
    Value,
    Var,
    statement_bodies,
    statement_values,
    value_children,
)
from convdsl.kernel.scalar import FUNCTIONS, Arrays, NotDifferentiable, ScalarFunction
from convdsl.kernel.vector_math import EXPANSIONS, Vectors
from convdsl.kernel.vector_math.exponential import DECAYED
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

Array = np.ndarray[Any, Any]
LANES = 8
F32, F64, I64, BOOL = DType.F32, DType.F64, DType.I64, DType.BOOL

# With fused multiply-adds and without, and with vectors of every width.
CPUS = ["native", "x86-64-v4", "x86-64-v3", "x86-64-v2"]
_PARTS = (
    "pow2",
    "pow2_lifted",
    "lift",
    "scale",
    "exponent",
    "mantissa",
)  # defined for some arguments only
OF_FLOATS = [f for f in FUNCTIONS.values() if F32 in f.takes and f.name not in _PARTS]
UNARY = [f for f in OF_FLOATS if f.arity == 1]
BINARY = [f for f in OF_FLOATS if f.arity == 2]
OF_INTEGERS = [f for f in FUNCTIONS.values() if I64 in f.takes and f.name != "quotient"]
OF_WORDS = [f for f in FUNCTIONS.values() if DType.U32 in f.takes and f.name != "quotient"]
OF_MASKS = [f for f in FUNCTIONS.values() if BOOL in f.takes]


def cases(functions: list[ScalarFunction]) -> Any:
    return pytest.mark.parametrize("function", functions, ids=[f.name for f in functions])


each_dtype = pytest.mark.parametrize("dtype", [F32, F64], ids=str)
each_cpu = pytest.mark.parametrize("cpu", CPUS)
each_execution = pytest.mark.parametrize("run", [run_machine_code, run_interpreter])


def mapped(function: ScalarFunction, dtype: DType, size: int, lanes: int) -> Kernel:
    """y[i] = f(x0[i], ...), a vector at a time."""
    b = Builder(function.name, dtype, lanes)
    x = [b.buffer(f"x{i}", dtype, size) for i in range(function.arity)]
    y = b.buffer("y", function.result(dtype), size, written=True)
    with b.parallel(("i",), (size // lanes,)) as (i,):
        loads = tuple(b.load(buffer, i * lanes) for buffer in x)
        b.store(y, i * lanes, Vectors(b).apply(function.name, loads))
    return b.kernel()


def compute(
    function: ScalarFunction,
    operands: tuple[Array, ...],
    run: Callable[..., dict[str, Array]] = run_machine_code,
    cpu: str = "native",
) -> Array:
    target = find_target(cpu)
    if not runs_here(target):
        pytest.skip(f"needs an {cpu} processor")
    dtype = next(d for d in DType if np.dtype(d.numpy) == operands[0].dtype)
    size = operands[0].size
    padded = [np.resize(x, -(-size // LANES) * LANES) for x in operands]
    arrays = {f"x{i}": x for i, x in enumerate(padded)}
    if run is run_interpreter:
        return run(mapped(function, dtype, padded[0].size, padded[0].size), arrays)["y"][:size]
    return run(mapped(function, dtype, padded[0].size, LANES), arrays, target)["y"][:size]


def check(function: ScalarFunction, operands: tuple[Array, ...], found: Array) -> float:
    """Within the stated units in the last place everywhere; the largest error."""
    if found.dtype.kind != "f":
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(found, function.meaning(*operands))
        return 0.0
    error = errors(found, truth(function.name, *operands))
    if function.name in ("max", "min"):  # which of two zeros does not matter
        error[(operands[0] == 0) & (operands[1] == 0) & (found == 0)] = 0
    worst = int(error.argmax())
    at = [x[worst] for x in operands]
    assert error[worst] <= function.ulps, f"{function.name}{at} = {found[worst]}"
    return float(error[worst])


def taken(function: ScalarFunction, x: Array) -> Array:
    """What it is defined for."""
    return x if function.name != "decay" else x[~(x > DECAYED[F32 if x.itemsize == 4 else F64])]


# Functions of floats


@pytest.mark.dear
@each_cpu
@each_dtype
@cases(UNARY)
def test_the_whole_range_by_machine_code(function: ScalarFunction, dtype: DType, cpu: str) -> None:
    dense = dtype is F32 and cpu == "native" and dtype not in function.printed
    x = taken(function, everywhere(dtype, 1 << 21 if dense else 1 << 15))
    worst = check(function, (x,), compute(function, (x,), cpu=cpu))
    assert worst >= function.ulps / 2 - 0.5, "the stated bound is slack"


@each_dtype
@cases(UNARY)
def test_the_whole_range_by_the_interpreter(function: ScalarFunction, dtype: DType) -> None:
    x = taken(function, everywhere(dtype, 4096))
    check(function, (x,), compute(function, (x,), run_interpreter))


def grid(dtype: DType) -> tuple[Array, Array]:
    """Pairs of numbers at which binary functions are special, and of drawn ones: of all sizes, and
    such as keep powers within the range."""
    info = np.finfo(dtype.numpy)
    edges = [0, 0.25, 1 / 3, 0.5, 0.9, 1 - info.epsneg, 1, 1 + info.eps, 1.5, 2, 2.5, 3, 4, 7, 10]
    edges += [88, 1000, 1001, 2.0**23 + 1, 2.0**24, 2.0**31, 2.0**53 - 1, 2.0**60, 1e10, 1e-10]
    edges += [1e30, 1e-30, info.max, info.tiny, np.inf]
    special = np.array([*edges, *(-e for e in edges), np.nan], dtype.numpy)
    a, b = (part.ravel() for part in np.meshgrid(special, special))
    random = np.random.default_rng(11)
    reach, count = np.log(float(info.max)), 1 << 14
    bases = np.concatenate(
        [
            np.exp(random.uniform(-reach, reach, count)),
            np.abs(1 + random.standard_normal(count) * 10.0 ** random.uniform(-6, -0.3, count)),
            random.uniform(0.5, 2, count),
            -np.exp(random.uniform(-5, 5, count)),
        ]
    )
    with np.errstate(all="ignore"):
        exponents = random.uniform(-1, 1, bases.size) * reach / np.abs(np.log(np.abs(bases)))
    exponents[-count:] = np.rint(random.uniform(-20, 20, count))
    other = everywhere(dtype, count)
    pairs = [(a, b), (bases, exponents), (other, random.permutation(other)), (other, other)]
    with np.errstate(all="ignore"):
        joined = [np.concatenate(parts) for parts in zip(*pairs, strict=True)]
        first, second = (flushed(part.astype(dtype.numpy)) for part in joined)
    return first, second


@each_cpu
@each_dtype
@cases(BINARY)
def test_pairs_by_machine_code(function: ScalarFunction, dtype: DType, cpu: str) -> None:
    check(function, grid(dtype), compute(function, grid(dtype), cpu=cpu))


@each_dtype
@cases(BINARY)
def test_pairs_by_the_interpreter(function: ScalarFunction, dtype: DType) -> None:
    check(function, grid(dtype), compute(function, grid(dtype), run_interpreter))


@each_dtype
@pytest.mark.parametrize("cpu", ["native", "x86-64-v2"])
def test_arguments_of_sin_that_lie_closest_to_multiples_of_pi(dtype: DType, cpu: str) -> None:
    """Kahan's worst case of f64, and the multiples of pi / 2 rounded."""
    k = np.arange(1, 1 << 14, dtype=np.float64)
    near = np.concatenate([k * (np.pi / 2), k * 2.0**100 * np.pi])
    x = np.append(near, 6381956970095103.0 * 2.0**797 if dtype is F64 else 16367173.0 * 2.0**72)
    x = x.astype(dtype.numpy)
    for name in ("sin", "cos"):
        check(FUNCTIONS[name], (x,), compute(FUNCTIONS[name], (x,), cpu=cpu))


@each_dtype
@cases([f for f in UNARY if f.result(F32) is F32])
def test_denormal_arguments_count_as_zeros(function: ScalarFunction, dtype: DType) -> None:
    info = np.finfo(dtype.numpy)
    x = np.array([info.smallest_subnormal * 100, -info.tiny * 0.75], dtype.numpy)
    error = errors(compute(function, (x,)), truth(function.name, flushed(x)))
    assert error.max() <= function.ulps


EXPONENTS = [*range(-4, 9), *(n / 4 for n in range(-9, 10)), 1 / 3, 63.0, np.inf, -np.inf, np.nan]


@each_execution
@each_dtype
def test_powers_to_constants(dtype: DType, run: Any) -> None:
    """Products and roots, where the exponent is known to the kernel: as pow has it."""
    x = np.unique(np.concatenate([grid(dtype)[0][:600], everywhere(dtype, 1 << 10)]))
    x = np.resize(np.append(x, [-0.0, np.nan]).astype(dtype.numpy), 4096)
    b = Builder("powers", dtype, LANES)
    source = b.buffer("x", dtype, x.size)
    made = [b.buffer(f"y{i}", dtype, x.size, written=True) for i in range(len(EXPONENTS))]
    lanes = x.size if run is run_interpreter else LANES
    b.lanes = lanes
    with b.parallel(("i",), (x.size // lanes,)) as (i,):
        base = b.load(source, i * lanes)
        for y, exponent in zip(made, EXPONENTS, strict=True):
            parts = (base, Const(float(exponent), base.type))
            b.store(y, i * lanes, Vectors(b).apply("pow", parts))
    found = run(b.kernel(), {"x": x})
    for y, exponent in zip(made, EXPONENTS, strict=True):
        check(FUNCTIONS["pow"], (x, np.full_like(x, exponent)), found[y.name])


# Functions of integers and masks


def integers() -> tuple[Array, Array]:
    info = np.iinfo(np.int64)
    edges = [0, 1, 2, 3, 5, 7, 10, 63, 64, 2**31, 2**32, 2**53 + 1, 2**62, info.max, info.max - 1]
    special = np.array([*edges, *(-e for e in edges), info.min], np.int64)
    a, b = (part.ravel() for part in np.meshgrid(special, special))
    random = np.random.default_rng(5)
    drawn = random.integers(info.min, info.max, (2, 1000)) >> random.integers(0, 63, (2, 1000))
    return np.concatenate([a, drawn[0]]), np.concatenate([b, drawn[1]])


@each_execution
@each_cpu
@cases(OF_INTEGERS)
def test_integers(function: ScalarFunction, cpu: str, run: Any) -> None:
    """Exactly NumPy's, by zero and at the ends as well, where processors trap."""
    operands = integers()[: function.arity]
    found = compute(function, operands, run, cpu)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, function.meaning(*operands))


@each_execution
@each_cpu
@cases(OF_WORDS)
def test_words(function: ScalarFunction, cpu: str, run: Any) -> None:
    """Modulo 2**32; shifts by more than there are digits."""
    edges = [0, 1, 2, 3, 5, 31, 32, 33, 2**16, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1]
    a, b = (part.ravel() for part in np.meshgrid(edges, edges))
    random = np.random.default_rng(6)
    drawn = random.integers(0, 2**32, (2, 1000)) >> random.integers(0, 32, (2, 1000))
    pair = (np.concatenate([a, drawn[0]]), np.concatenate([b, drawn[1]]))
    operands = tuple(part.astype(np.uint32) for part in pair)[: function.arity]
    found = compute(function, operands, run, cpu)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, function.meaning(*operands))


def test_what_operations_on_words_mean() -> None:
    """In Python's own integers, which have no width."""
    random = np.random.default_rng(8)
    a, b = random.integers(0, 2**32, (2, 64)).tolist()
    amounts = [*range(40), 2**31, 2**32 - 1, *range(22)]
    words = [np.array(x, np.uint32) for x in (a, b, amounts)]
    pairs = list(zip(a, b, amounts, strict=True))
    expected = {
        "mul_hi": ([x * y >> 32 for x, y, _ in pairs], words[1]),
        "mul": ([x * y % 2**32 for x, y, _ in pairs], words[1]),
        "sub": ([(x - y) % 2**32 for x, y, _ in pairs], words[1]),
        "xor": ([x ^ y for x, y, _ in pairs], words[1]),
        "shl": ([x * 2 ** min(n, 64) % 2**32 for x, _, n in pairs], words[2]),
        "shr": ([x // 2 ** min(n, 64) for x, _, n in pairs], words[2]),
    }
    for name, (wanted, second) in expected.items():
        np.testing.assert_array_equal(compute(FUNCTIONS[name], (words[0], second)), wanted, name)


def test_what_integer_division_and_powers_mean() -> None:
    """Spelled out, since record and machine code could err alike."""
    a = np.array([7, -7, 7, -7, 5, -5, 0, -(2**63), -(2**63)])
    b = np.array([2, 2, -2, -2, 0, 0, 0, -1, 1])
    div, mod, power = (FUNCTIONS[name] for name in ("div", "mod", "pow"))
    quotients = [3, -4, -4, 3, 0, 0, 0, -(2**63), -(2**63)]
    np.testing.assert_array_equal(compute(div, (a, b)), quotients)
    np.testing.assert_array_equal(compute(mod, (a, b)), [1, 1, -1, -1, 0, 0, 0, 0, 0])
    a, b = np.array([-2, 3, 3, 2, 0, -1, -1, 1, 5]), np.array([3, 40, 41, 64, 0, -3, -2, -9, -1])
    wrapped = [-8, 3**40 - 2**64, 3**41 - 2**65, 0, 1, -1, 1, 1, 0]
    np.testing.assert_array_equal(compute(power, (a, b)), wrapped)


@each_execution
@cases(OF_MASKS)
def test_masks(function: ScalarFunction, run: Any) -> None:
    operands = (np.tile([True, True, False, False], 4), np.tile([True, False], 8))
    found = compute(function, operands[: function.arity], run)
    np.testing.assert_array_equal(found, function.meaning(*operands[: function.arity]))


# Records


@cases(list(FUNCTIONS.values()))
def test_every_function_can_be_lowered(function: ScalarFunction) -> None:
    for dtype in function.takes - function.printed:
        assert function.formula is not None or function.name in EXPANSIONS, dtype
    for formula in (function.formula, *function.derivatives):
        if formula is not None and not isinstance(formula, NotDifferentiable):
            assert set(functions_of(formula)) <= set(FUNCTIONS)


BOTH = [f for f in FUNCTIONS.values() if f.formula is not None and f.name in EXPANSIONS]


@each_dtype
@cases(BOTH)
def test_a_way_of_its_own_is_shorter(function: ScalarFunction, dtype: DType) -> None:
    """Than the formula's functions, one by one."""

    def operations(values: list[Value]) -> int:
        computed = (v for v in values if not isinstance(v, Const | Var | Load))
        return sum(1 + operations(list(value_children(v))) for v in computed)

    def length(formula: bool) -> int:
        b = Builder("f", dtype, LANES)
        buffer = b.buffer("x", dtype, LANES)
        with b.parallel(("i",), (1,)):
            x = b.load(buffer, 0)
            written = read(function.formula, (x,), Vectors(b)) if formula else None
            b.let(written or Vectors(b).apply(function.name, (x,)))
        (loop,) = b.kernel().body
        (body,) = statement_bodies(loop)
        return operations([value for s in body for value in statement_values(s)])

    assert length(formula=False) < length(formula=True)


DIFFERENTIABLE = [
    f for f in OF_FLOATS if not any(isinstance(d, NotDifferentiable) for d in f.derivatives)
]


@cases(DIFFERENTIABLE)
def test_derivatives_by_finite_differences(function: ScalarFunction) -> None:
    """Away from kinks and ends, in doubles; four points, so that the error is of fourth order."""
    random = np.random.default_rng(3)
    x = np.concatenate([random.uniform(-5, 5, 200), random.uniform(-30, 30, 50)])
    operands = [x[np.abs(x - np.rint(x)) > 0.02]]
    if function.arity == 2:
        operands.append(random.permutation(operands[0]))
    if function.name in ("sqrt", "rsqrt", "log", "log1p", "pow"):
        operands[0] = np.abs(operands[0])
    if function.name in ("asin", "acos", "atanh"):
        operands[0] = operands[0] / 40
    if function.name == "acosh":
        operands[0] = 1 + np.abs(operands[0])
    with np.errstate(all="ignore"):
        y = function.meaning(*operands)
        for position, formula in enumerate(function.derivatives):
            assert not isinstance(formula, NotDifferentiable)
            found = read(formula, (*operands, y), Arrays())
            h = 1e-3 * np.minimum(np.abs(operands[position]), 1)

            def moved(steps: int, position: int = position, h: Array = h) -> Array:
                there = list(operands)
                there[position] = there[position] + steps * h
                return function.meaning(*there)

            slope = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * h)
            smooth = np.abs(moved(2) - 2 * y + moved(-2)) < 1e-3 * (1 + np.abs(y))
            kept = np.broadcast_to(smooth, found.shape)
            assert kept.mean() > 0.5
            np.testing.assert_allclose(found[kept], slope[kept], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softplus", "mish", "tanh", "softsign"])
def test_derivatives_are_finite_at_both_ends(name: str) -> None:
    functions = {"relu": "max", "mish": "tanh_softplus"}
    function = FUNCTIONS[functions.get(name, name)]
    x = np.array([-1e30, -1000.0, -90.0, 90.0, 1000.0, 1e30], np.float32)
    operands = (x, np.zeros_like(x))[: function.arity]
    with np.errstate(all="ignore"):
        for formula in function.derivatives:
            assert not isinstance(formula, NotDifferentiable)
            found = read(formula, (*operands, function.meaning(*operands)), Arrays())
            assert np.isfinite(found).all()


# Ends of vectors


@pytest.mark.parametrize("name", ["pow", "sign", "max", "isnan", "exp"])
def test_vectors_end_anywhere(name: str) -> None:
    """Sizes from 1 to 33, of numbers that are special."""
    function = FUNCTIONS[name]
    pairs = grid(F32)
    b = GraphBuilder()
    arrays: dict[str, Array] = {}
    made = {}
    for size in range(1, 34):
        names = [f"{operand}{size}" for operand in "ab"[: function.arity]]
        made[f"y{size}"] = b(name, *(b.input(key, size) for key in names))
        for key, values in zip(names, pairs, strict=False):
            arrays[key] = values[size * 40 : size * 41]
    found = run_graph(b.output(**made), arrays, machine_code)
    for size in range(1, 34):
        operands = tuple(arrays[f"{operand}{size}"] for operand in "ab"[: function.arity])
        check(function, operands, found[f"y{size}"])

"""Philox as an expression: published answers, every execution alike, the numbers made of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from expressions import run_everywhere, run_machine_code
from scipy import stats

from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import (
    Axis,
    Cast,
    Expr,
    IndexValue,
    Literal,
    Read,
    Stage,
    TensorExpr,
    TensorVar,
    flops,
)
from convdsl.kernel.philox import Words, normal, philox, uniform, uniform_f64
from convdsl.tensor import DType, TensorType

Array = np.ndarray[Any, Any]
F32, F64, U32 = DType.F32, DType.F64, DType.U32

# Random123's kat_vectors, philox4x32 10: counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words_of(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def in_python(counter: list[int], key: list[int]) -> list[int]:
    """The paper's figure, in integers that have no width."""
    a, b, c, d = counter
    k0, k1 = key
    for _ in range(10):
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = q >> 32 ^ b ^ k0, q % 2**32, p >> 32 ^ d ^ k1, p % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [a, b, c, d]


def generator(size: int) -> TensorExpr:
    """Four words at each position, from counters and keys that are data."""
    i = Axis("i", size)
    inputs = tuple(TensorVar(name, TensorType(U32, (size,))) for name in "abcdkl")
    a, b, c, d, k, m = (x[i.i] for x in inputs)
    stages, words = philox((i,), (a, b, c, d), (k, m))
    outputs = [
        Stage(TensorVar(f"y{n}", TensorType(U32, (size,))), (i,), word)
        for n, word in enumerate(words)
    ]
    return TensorExpr(inputs, (*stages, *outputs), tuple(s.target.name for s in outputs))


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 33])
def test_published_and_drawn_answers(size: int) -> None:
    drawn = np.random.default_rng(size).integers(0, 2**32, (6, size)).tolist()
    for column, (counter, key, _) in enumerate(KNOWN[:size]):
        for row, word in enumerate(words_of(counter) + words_of(key)):
            drawn[row][column] = word
    expected = np.array([in_python(list(x[:4]), list(x[4:])) for x in zip(*drawn, strict=True)])
    for column, (_, _, words) in enumerate(KNOWN[:size]):
        assert expected[column].tolist() == words_of(words)
    arrays = {name: np.array(row, np.uint32) for name, row in zip("abcdkl", drawn, strict=True)}
    for name, outputs in run_everywhere(generator(size), arrays).items():
        for k in range(4):
            np.testing.assert_array_equal(outputs[f"y{k}"], expected[:, k], name)


def test_what_a_position_costs() -> None:
    """Ten rounds of four products and four exclusive ors; the key grows nine times."""
    assert flops(generator(5)) == 5 * (10 * 8 + 9 * 2)


def drawn(rule: Any, dtype: DType, shape: tuple[int, ...]) -> TensorExpr:
    """y = rule(words), the counter made of positions and a step, as dropout has it."""
    axes = tuple(Axis(f"i{k}", extent) for k, extent in enumerate(shape))
    step = TensorVar("step", TensorType(U32, ()))
    element: Expr = Literal(0, U32)
    for axis in axes:
        element = element * axis.extent + IndexValue(axis.i, U32)
    counter: Words = (element, Read(step, ()), Literal(3, U32), Literal(0, U32))
    stages, words = philox(axes, counter, (Literal(7, U32), Literal(11, U32)))
    y = TensorVar("y", TensorType(dtype, shape))
    return TensorExpr((step,), (*stages, Stage(y, axes, rule(words))), ("y",))


def raw(shape: tuple[int, ...], step: int) -> Array:
    """The words at every position: four of them, last."""
    size = int(np.prod(shape))
    found = [in_python([i, step, 3, 0], [7, 11]) for i in range(size)]
    return np.array(found, np.uint64).reshape(*shape, 4)


RULES = {
    "uniform": (lambda w: uniform(w[0]), F32),
    "uniform_f64": (lambda w: uniform_f64(w[1], w[2]), F64),
    "mask": (lambda w: Cast(uniform(w[3]), DType.F16), DType.F16),
}


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("shape", [(1,), (33,), (5, 19), (2, 3, 4, 5), (1, 17, 1, 3)], ids=str)
@pytest.mark.parametrize("name", RULES)
def test_uniform_numbers(name: str, shape: tuple[int, ...]) -> None:
    rule, dtype = RULES[name]
    step = 2**31 + 5
    words = raw(shape, step)
    expected = {
        "uniform": (words[..., 0] >> 8) / 2.0**24,
        "uniform_f64": ((words[..., 1] >> 5) * 2**26 + (words[..., 2] >> 6)) / 2.0**53,
        "mask": ((words[..., 3] >> 8) / 2.0**24).astype(np.float16),
    }[name]
    arrays = {"step": np.array(step, np.uint32)}
    for execution, outputs in run_everywhere(drawn(rule, dtype, shape), arrays).items():
        np.testing.assert_array_equal(outputs["y"], expected, execution)


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize("half", [0, 1])
def test_normal_numbers(half: int) -> None:
    """Against the formula in double precision, and against the distribution."""
    shape = (40_000,)
    expr = drawn(lambda w: normal(w[0], w[1])[half], F32, shape)
    arrays = {"step": np.array(1, np.uint32)}
    words = {
        k: evaluate(drawn(lambda w, k=k: w[k], U32, shape), arrays)["y"].astype(np.float64)
        for k in (0, 1)
    }
    u, v = (1 - np.floor(words[0] / 256) * 2.0**-24), np.floor(words[1] / 256) * 2.0**-24
    angle = (v.astype("f4") * np.float32(2 * np.pi)).astype(np.float64)
    exact = np.sqrt(-2 * np.log(u)) * (np.cos(angle), np.sin(angle))[half]
    for outputs in [evaluate(expr, arrays), *run_machine_code(expr, arrays).values()]:
        assert np.abs(outputs["y"] - exact).max() < 2e-6
        assert stats.kstest(outputs["y"], "norm").pvalue > 0.01


def test_streams_differ() -> None:
    """By step, and by element: no two of 40,000 positions have the same two words."""
    first, second = (
        evaluate(drawn(lambda w: uniform_f64(w[0], w[1]), F64, (20_000,)), {"step": step})["y"]
        for step in (np.array(1, np.uint32), np.array(2, np.uint32))
    )
    assert len(np.unique([first, second])) == 40_000
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03

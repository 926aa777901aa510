"""A tensor multiplied with itself: each factor is packed, or lies, in its own way.

Gram matrices, attention whose queries are the keys, squares of matrices; on processors and cards.
"""

from __future__ import annotations

import contractions_on_cards as cards
import pytest
from drawn_convolutions import check
from executors import executing, run_session
from graphs import Builder, evaluate_results, random_arrays, rewritten

from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import CudaTarget
from convdsl.tensor import DType

EQUATIONS = {
    "ncp,ncq->npq": [(1, 64, 196), (1, 196, 64), (2, 16, 24), (1, 1, 9), (3, 5, 7)],
    "npc,nqc->npq": [(1, 196, 64), (2, 64, 33), (3, 5, 7)],
    "npc,npd->ncd": [(1, 64, 196), (2, 7, 19)],
    "pc,qc->pq": [(16, 16), (33, 20), (1, 7), (64, 196)],
    "ab,bc->ac": [(16, 16), (33, 33), (5, 5)],
    "bab,bcb->ac": [(6, 20, 6)],
    "bhid,bhjd->bhij": [(1, 2, 49, 32), (2, 3, 7, 5)],
    "p,q->pq": [(17,)],
    "ab,ab->": [(9, 33)],
}
CASES = [
    pytest.param(equation, shape, id=f"{equation} {shape}")
    for equation, shapes in EQUATIONS.items()
    for shape in shapes
]


def product(equation: str, shape: tuple[int, ...], ending: bool, dtype: DType) -> Graph:
    b = Builder()
    x = b.input("x", *shape, dtype=dtype)
    y = b("einsum", x, x, equation=equation)
    return rewritten(b.output(y=b("relu", b("add", y, y)) if ending else y))


@pytest.mark.drawn(share=4)
@pytest.mark.parametrize(("cpu", "ending"), [("native", False), ("x86-64-v2", True)])
@pytest.mark.parametrize(("equation", "shape"), CASES)
def test_on_processors(equation: str, shape: tuple[int, ...], ending: bool, cpu: str) -> None:
    check(product(equation, shape, ending, DType.F32), DType.F32, cpu)


@pytest.mark.dear(share=4)
def test_as_fast_as_two_tensors() -> None:
    """It runs by the schedules that the product of two tensors runs by."""
    b = Builder()
    x, z = b.input("x", 1, 196, 64), b.input("z", 1, 196, 64)
    two = b.output(y=b("einsum", x, z, equation="npc,nqc->npq"))
    assert check(product("npc,nqc->npq", (1, 196, 64), False, DType.F32)) == check(two)


@pytest.mark.ladder
@pytest.mark.parametrize("precision", ["highest", "high", "float16"])
@pytest.mark.parametrize(("equation", "shape"), CASES)
def test_on_cards(equation: str, shape: tuple[int, ...], precision: str) -> None:
    cards.check(product(equation, shape, False, DType.F32), CudaTarget("sm_80", precision))


def test_what_is_read_twice_is_not_written_over() -> None:
    """s <- relu(s s) + s x: s is read where it is written, and elsewhere as both factors."""
    b = Builder()
    s = b.parameter("s", 24, 24)
    x = b.input("x", 24, 24)
    b.update(s, b("add", b("relu", b("matmul", s, s)), b("mul", s, x)))
    graph = rewritten(b.output(y=b("relu", x)))
    arrays = {name: a.astype("f4") * 0.2 for name, a in random_arrays(graph, 2).items()}
    (found,) = run_session(graph, arrays, [arrays], executing)
    exact = evaluate_results(graph, {name: a.astype("f8") for name, a in arrays.items()})
    for mine, wanted in zip(found, exact, strict=True):
        for name, array in mine.items():
            assert abs(array - wanted[name]).max() < 1e-5, name

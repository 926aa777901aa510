"""Contractions of f16 and bf16 on cards: the products of halves as they are stored, sums in f32.

Double precision says what is right, from the very halves that went in; what comes out is rounded to
halves between one layer and the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from contractions_on_cards import check, lowered_for, schedules_of
from cuda_shim.running import ORDERS
from graphs import Builder
from layer_steps import step_graph
from schedules.test_products import Sums

from convdsl.backends.cuda.printer import print_module
from convdsl.ir.graph import Graph
from convdsl.kernel.cuda_target import ARCHITECTURES, CudaTarget
from convdsl.kernel.mma import BF16, F16, SHORT_F16, MmaForm
from convdsl.schedules.cuda.plan import plan_for
from convdsl.schedules.cuda.tile import form_of
from convdsl.tensor import DType

pytestmark = pytest.mark.drawn

Made = Callable[[DType], Graph]

CASES = {
    "f16": (DType.F16, CudaTarget("sm_80")),
    "bf16": (DType.BF16, CudaTarget("sm_90")),
    "f16 on sm_75": (DType.F16, CudaTarget("sm_75")),
    "bf16 on sm_75": (DType.BF16, CudaTarget("sm_75")),
    "f16, products of f32 in TF32": (DType.F16, CudaTarget("sm_80", "high")),
}
STORED = {DType.F16: 2e-3, DType.BF16: 1.5e-2}
"""The largest error over the range of a result: four units of what is stored, which is rounded
once a layer. Sums and products add nothing to speak of."""


def one_case_each(names: Iterable[str]) -> list[ParameterSet]:
    """Every name in one of the cases, in turn; in the others where all are asked for."""
    return [
        pytest.param(name, case, marks=[] if (i + j) % len(CASES) == 0 else [pytest.mark.slow])
        for i, name in enumerate(names)
        for j, case in enumerate(CASES)
    ]


def held(make: Made, case: str, order: str = "forward", *names: str, **more: Any) -> list[str]:
    """A graph of halves against itself in double precision; the schedules that it ran by."""
    dtype, target = CASES[case]
    tolerance = STORED[dtype]
    return check(
        make(dtype), target, order, *names, tolerance=tolerance, exact=make(DType.F64), **more
    )


def conv(shape: tuple[int, ...], channels: int, kernel: int, **more: Any) -> Made:
    def make(dtype: DType) -> Graph:
        b = Builder()
        given = b.input("x", shape[0], 2, *shape[2:], dtype=dtype)
        x = b("conv", given, channels=shape[1], kernel=1, bias=False)
        y = b("conv", x, channels=channels, kernel=kernel, **{"pad": "same", **more})
        return b.output(y=b("relu", y))

    return make


def plain(dtype: DType) -> Graph:
    """An image as it comes, three channels one after the other."""
    b = Builder()
    x = b.input("x", 2, 3, 11, 13, dtype=dtype)
    return b.output(y=b("conv", x, channels=20, kernel=7, stride=2, pad=3))


def residual(dtype: DType) -> Graph:
    """Twelve channels are filled up to sixteen as halves and are whole vectors in f32: what reads
    both meets two layouts."""
    b = Builder()
    x = b("conv", b.input("x", 2, 3, 6, 5, dtype=dtype), channels=12, kernel=1)
    y = b("conv", x, channels=12, kernel=3, pad="same")
    wide = b("add", b("cast", y, dtype="f32"), b("cast", x, dtype="f32"))
    z = b("conv", b("cast", wide, dtype=str(dtype)), channels=20, kernel=1)
    return b.output(y=b("add", y, x), wide=wide, z=z)


LAYERS: dict[str, Made] = {
    "ragged channels": conv((2, 58, 9, 7), 112, 3),
    "seven channels": conv((1, 7, 9, 7), 13, 5),
    "one channel": conv((1, 1, 9, 9), 17, 5),
    "strided": conv((1, 36, 7, 7), 64, 3, stride=2),
    "one filter": conv((2, 24, 6, 6), 1, 3),
    "dilated": conv((1, 8, 12, 10), 16, 3, dilation=3),
    "groups": conv((1, 24, 6, 8), 36, 3, groups=3),
    "groups of two filters": conv((2, 30, 5, 5), 20, 3, groups=10),
    "one axis": conv((2, 20, 50), 33, 9, stride=3),
    "plain input": plain,
    "two layouts": residual,
}


@pytest.mark.parametrize(("layer", "case"), one_case_each(LAYERS))
def test_convolutions(layer: str, case: str) -> None:
    order = list(ORDERS)[list(LAYERS).index(layer) % len(ORDERS)]
    assert "implicit_gemm" in held(LAYERS[layer], case, order)


SMALL = 0.25
"""Of inputs: squares of what is sent back stay finite in f16."""


def step(op: str, shape: tuple[int, ...], **attributes: Any) -> Made:
    return lambda dtype: step_graph(op, shape, attributes, dtype)


STEPS: dict[str, Made] = {
    "conv": step("conv", (2, 8, 9, 6), channels=58, kernel=3, pad="same"),
    "strided": step("conv", (1, 12, 9, 8), channels=20, kernel=3, stride=2),
    "groups": step("conv", (2, 12, 7, 5), channels=18, kernel=3, groups=3),
    "pixels": step("conv", (1, 20, 8, 8), channels=36, kernel=1, bias=False),
    "linear": step("linear", (33, 50), channels=70),
    "transposed": step("conv_transpose", (1, 9, 5, 6), channels=12, kernel=4, stride=2),
}


@pytest.mark.parametrize(("layer", "case"), one_case_each(STEPS))
def test_training_steps(layer: str, case: str) -> None:
    """Both gradients, and weights that change."""
    ran = held(STEPS[layer], case, "shuffled", scale=SMALL)
    assert ran.count("implicit_gemm") >= 2


@pytest.mark.parametrize(
    ("layer", "case"), [p for p in one_case_each(STEPS) if p.values[0] in ("strided", "transposed")]
)
def test_phases(layer: str, case: str) -> None:
    ran = held(STEPS[layer], case, "mixed", "phases", scale=SMALL)
    assert ran.count("phases") >= 4


FORMULAS = ["ij,jk->ik", "ij,kj->ik", "ji,jk->ik", "ji,kj->ik", "bij,bjk->bik", "bij,bkj->ikb",
            "aibj,bkaj->iak", "bhqd,bhkd->bhqk", "bhqk,bhkd->bqhd"]  # fmt: skip
SIZES = {"a": 2, "b": 3, "h": 2, "i": 37, "j": 24, "k": 19, "q": 17, "d": 12}


@pytest.mark.parametrize(("formula", "case"), one_case_each(FORMULAS))
def test_products(formula: str, case: str) -> None:
    assert "implicit_gemm" in held(lambda dtype: Sums.of(formula, SIZES, dtype, inner="ab"), case)


@pytest.mark.parametrize("case", CASES)
def test_long_sums_are_f32(case: str) -> None:
    """More terms than f16 has numbers for, added in parts: were a sum kept in halves it would stop
    growing."""
    dtype, target = CASES[case]
    sizes = {"i": 20, "j": 5000, "k": 18}

    def make(dtype: DType) -> Graph:
        return Sums.of("ij,kj->ik", sizes, dtype, static="b")

    plans = [plan_for(c.task, target) for c in lowered_for(make(dtype), target).choices]
    assert max(plan.splits for plan in plans if plan is not None) > 1
    held(make, case)


@pytest.mark.dear
@pytest.mark.parametrize("case", ["f16", "bf16", "f16 on sm_75"])
def test_by_loops(case: str) -> None:
    """The loops mean the same: copies are waited for, warps are whole, nothing races."""
    held(conv((1, 6, 2, 3), 5, 2), case, interpreted=True)
    held(step("linear", (5, 9), channels=6), case, interpreted=True)


@pytest.mark.dear
@pytest.mark.ladder
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layer", STEPS)
def test_as_ptx(layer: str, case: str) -> None:
    held(STEPS[layer], case, ptx=True, scale=SMALL)


# What is multiplied how

FORMS: dict[tuple[DType, DType], tuple[MmaForm | None, MmaForm | None]] = {
    (DType.F16, DType.F16): (SHORT_F16, F16),
    (DType.BF16, DType.BF16): (None, BF16),
    (DType.F16, DType.BF16): (None, None),
    (DType.F16, DType.F32): (None, None),
    (DType.F32, DType.F32): (None, None),
}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_halves_of_one_type_are_multiplied_as_they_are(arch: str) -> None:
    """Whatever the precision of f32: nothing is lost by it."""
    for (a, b), forms in FORMS.items():
        assert form_of(CudaTarget(arch), a, b)[0] is forms[arch != "sm_75"]


@pytest.mark.dear
def test_halves_of_two_types_meet_in_f32() -> None:
    b = Builder()
    x = b("neg", b.input("x", 19, 24, dtype=DType.F16))
    y = b("neg", b.input("y", 21, 24, dtype=DType.BF16))
    both = [b("cast", value, dtype="f32") for value in (x, y)]
    graph = b.output(z=b("matmul", both[0], b("transpose", both[1], axes=(1, 0))))
    for target in (CudaTarget("sm_80"), CudaTarget("sm_80", "medium"), CudaTarget("sm_75")):
        check(graph, target)


@pytest.mark.parametrize("case", CASES)
def test_units_that_are_asked(case: str) -> None:
    dtype, target = CASES[case]
    lowered = lowered_for(STEPS["conv"](dtype), target)
    source = print_module(lowered.program, target).source
    form, _ = form_of(target, dtype, dtype)
    body = source[source.index("__global__") :]
    assert (f"mma_{str(form).replace('.', '_')}(" in body) == (form is not None)
    assert ("mma_" in body) == (form is not None)


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_infinities_and_nan_go_through(dtype: DType) -> None:
    """A step that overflows must show it: loss scaling stands on that."""
    graph = Sums.of("ij,kj->ik", {"i": 17, "j": 40, "k": 9}, dtype)
    assert schedules_of(lowered_for(graph, CudaTarget("sm_80")))
    from cuda_shim.graphs import run_graph

    from convdsl.tensor.conversion import convert

    random = np.random.default_rng(0)
    a, b = random.standard_normal((17, 40)), random.standard_normal((9, 40))
    a[3, 5], a[4, 7], b[2, 1] = np.inf, np.nan, -np.inf
    arrays = {"a": convert(a, DType.F64, dtype), "b": convert(b, DType.F64, dtype)}
    found = convert(run_graph(graph, arrays)["y"], dtype, DType.F64)
    with np.errstate(invalid="ignore"):
        truth = a @ b.T
    np.testing.assert_array_equal(np.isnan(found), np.isnan(truth))
    np.testing.assert_array_equal(np.isinf(found), np.isinf(truth))

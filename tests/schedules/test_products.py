"""Products of any two operands: roles of axes, factors in either order, weights given in calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from drawn_convolutions import check, convolutions, run
from graphs import Array, Builder, rewritten
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_steps import EPSILON

from convdsl.backends.llvm.objects import find_target
from convdsl.ir.graph import Graph, Value
from convdsl.ir.opdef import (
    DERIVED,
    REQUIRED,
    Attribute,
    Call,
    Kind,
    OpDef,
    Operand,
    derived,
    no_state,
)
from convdsl.kernel.expr import Axis, Read, Reduce, Stage, TensorExpr, TensorVar
from convdsl.kernel.nodes import Space
from convdsl.lowering.lower import lower
from convdsl.ops import BY_NAME
from convdsl.schedules.contraction import (
    Contraction,
    find_contraction,
    match_convolution,
    match_product,
)
from convdsl.schedules.cpu import gemm_ways
from convdsl.schedules.cpu.machine import cpu_machine
from convdsl.tensor import DType, TensorType

pytestmark = pytest.mark.drawn

MACHINE = cpu_machine(find_target())
CPUS = ["native", "x86-64-v3", "x86-64-v2"]


# Sums of products in NumPy's notation, as an operator of the tests


def letters(call: Call) -> tuple[str, str, str]:
    left, out = call["formula"].split("->")
    a, b = left.split(",")
    return a, b, out


def extents(call: Call) -> dict[str, Any]:
    a, b, _ = letters(call)
    sizes = dict(zip(a, call.type("a").shape, strict=True))
    return sizes | dict(zip(b, call.type("b").shape, strict=True))


def infer_sum(call: Call) -> tuple[TensorType, ...]:
    sizes = extents(call)
    return (TensorType(call.type("a").dtype, tuple(sizes[c] for c in letters(call)[2])),)


def kernel_sum(call: Call) -> TensorExpr:
    a, b, out = letters(call)
    axes = {letter: Axis(letter, extent) for letter, extent in extents(call).items()}
    left = Read(call.var("a"), tuple(axes[c].i for c in a))
    right = Read(call.var("b"), tuple(axes[c].i for c in b))
    summed = tuple(axis for letter, axis in axes.items() if letter not in out)
    stage = Stage(
        TensorVar("y", call.outputs[0]),
        tuple(axes[c] for c in out),
        Reduce("sum", summed, left * right),
    )
    return TensorExpr((call.var("a"), call.var("b")), (stage,), ("y",))


SUM = OpDef(
    name="sum_of_products",
    aliases=(),
    doc="NumPy's einsum of two operands.",
    operands=(Operand("a"), Operand("b")),
    attributes=(Attribute("formula", Kind.STRING, REQUIRED, "as NumPy writes it"),),
    outputs=("y",),
    resolve=lambda call: call.attributes,
    state=no_state,
    infer=infer_sum,
    window=derived,
    cost=BY_NAME["matmul"].cost,
    kernel=kernel_sum,
    gradient=DERIVED,
)


class Sums(Builder):
    """`Sums.of(formula, a's shape, b's shape)`: a graph of one such operator over inputs `a`, `b`.

    `inner`: operands that another operator made, of the letters a and b, and so lie as values in
    between do. `static`: operands that are weights."""

    @classmethod
    def of(
        cls,
        formula: str,
        sizes: Mapping[str, int],
        dtype: DType = DType.F32,
        inner: str = "",
        static: str = "",
    ) -> Graph:
        b = cls()
        names = dict(zip("ab", formula.split("->")[0].split(","), strict=True))
        operands: dict[str, Value] = {}
        for name, own in names.items():
            shape = tuple(sizes[letter] for letter in own)
            make = b.parameter if name in static else b.input
            value = make(name, *shape, dtype=dtype)
            operands[name] = b("neg", value) if name in inner and name not in static else value
        node = b.graph.apply(SUM, operands, {"formula": formula}, name="sum")
        return b.output(y=node.output)


def check_sum(
    formula: str,
    sizes: Mapping[str, int],
    dtype: DType = DType.F32,
    cpu: str = "native",
    inner: str = "",
    static: str = "",
) -> list[str]:
    """The graph equals NumPy's einsum in double precision; its schedules, copies left out."""
    graph = Sums.of(formula, sizes, dtype, inner, static)
    random = np.random.default_rng(3)
    arrays: dict[str, Array] = {}
    exact: list[Array] = []
    for name, own in zip("ab", formula.split("->")[0].split(","), strict=True):
        array = random.standard_normal([sizes[c] for c in own]).astype(dtype.numpy)
        arrays[name] = array
        sign = -1.0 if name in inner and name not in static else 1.0
        exact.append(sign * array.astype(np.float64))
    target = find_target(cpu)
    found, schedules = run(graph, arrays, target)
    expected = np.einsum(formula, *exact)
    span = float(np.max(np.abs(expected), initial=1.0))
    np.testing.assert_allclose(found["y"], expected, rtol=0, atol=256 * EPSILON[dtype] * span)
    return [schedule for schedule in schedules if schedule not in ("generic", "transpose")]


FORMULAS = [
    "mk,kn->mn",
    "mk,nk->mn",
    "km,kn->mn",
    "km,nk->mn",
    "kn,mk->mn",
    "mk,kn->nm",
    "k,kn->n",
    "mk,k->m",
    "bmk,bkn->bmn",
    "bmk,bnk->bmn",
    "bmk,kn->bmn",
    "mk,bkn->bmn",
    "bhmd,bhnd->bhmn",
    "bhmn,bhnd->bhmd",
    "bmhd,bnhd->bhmn",
    "bhmn,bnhd->bmhd",
    "mkl,lkn->mn",
    "mkl,nkl->mn",
    "kml,kln->mln",
    "mkn,k->mn",
    "bmk,bk->bm",
    "mk,mkn->mn",
]


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("formula", FORMULAS)
@settings(max_examples=4)
@given(data=st.data())
def test_drawn_sums_of_products(formula: str, cpu: str, data: st.DataObject) -> None:
    """Any roles of the axes, factors in any order and layout, weights or not."""
    extent = st.one_of(st.integers(1, 70), st.sampled_from([1, 16, 32, 64]))
    sizes = {
        letter: data.draw(st.integers(1, 3) if letter in "bhl" else extent, letter)
        for letter in sorted(set(formula) - set(",->"))
    }
    dtype = data.draw(st.sampled_from([DType.F32, DType.F32, DType.F64]))
    inner = data.draw(st.sampled_from(["", "a", "b", "ab"]))
    static = data.draw(st.sampled_from(["", "", "a", "b"]))
    check_sum(formula, sizes, dtype, cpu, inner, static)


ALONG_VECTORS = ["mkn,k->mn", "mk,mkn->mn", "k,kn->n", "mk,k->m", "bmk,bk->bm", "kml,kln->mln"]
MATRICES = [formula for formula in FORMULAS if formula not in ALONG_VECTORS]


@pytest.mark.parametrize("static", ["", "a", "b"])
@pytest.mark.parametrize("formula", MATRICES)
def test_products_of_matrices_run_on_tiles(formula: str, static: str) -> None:
    """Whatever is transposed, whichever factor is a weight, however many batches there are."""
    sizes = {"b": 2, "h": 3, "m": 40, "n": 50, "k": 70, "d": 64, "l": 3}
    found = check_sum(formula, sizes, static=static)
    assert found[-1:] in (["gemm"], ["direct"])  # some are convolutions of one tap


def roles(formula: str, **sizes: int) -> Contraction:
    graph = Sums.of(formula, sizes)
    (stage,) = graph.outputs["y"].node.call.kernel.stages  # pyright: ignore[reportAttributeAccessIssue]
    found = find_contraction(stage)
    assert found is not None
    return found


def names(axes: tuple[Axis, ...]) -> str:
    return "".join(axis.name for axis in axes)


def test_roles_of_axes() -> None:
    found = roles("bhmd,bhnd->bhmn", b=2, h=3, m=4, n=5, d=6)
    assert (names(found.batch), names(found.m), names(found.n), names(found.k)) == (
        "bh",
        "m",
        "n",
        "d",
    )
    assert names(found.turned.m) == "n"


def test_an_axis_of_one_position_plays_no_part() -> None:
    found = roles("bmk,bkn->bmn", b=1, m=4, n=5, k=6)
    assert (names(found.batch), names(found.m), names(found.n)) == ("", "m", "n")


def test_a_sum_over_one_factor_alone_is_no_product() -> None:
    found = roles("mkl,kn->mn", m=4, k=5, l=6, n=7)
    assert names(found.alone) == "l"
    stage = Sums.of("mkl,kn->mn", {"m": 4, "k": 5, "l": 6, "n": 7}).outputs["y"].node
    (stage,) = stage.call.kernel.stages  # pyright: ignore[reportAttributeAccessIssue]
    assert match_product(stage, stage.axes[-1]) is None
    assert match_convolution(stage) is None


# Weights given in calls


def late_conv(
    shape: tuple[int, ...], attributes: Mapping[str, Any], dtype: DType, made: bool
) -> Graph:
    """A convolution whose weights are inputs, or made of inputs by another operator."""
    b = Builder()
    x = b("relu", b.input("x", *shape, dtype=dtype))
    count = attributes["channels"], shape[1] // attributes["groups"]
    weight = b.input("w", *count, *attributes["kernel"], dtype=dtype)
    states = {"weight": b("tanh", weight) if made else weight}
    if attributes["bias"]:
        states["bias"] = b.input("bias", attributes["channels"], dtype=dtype)
    h = b("conv", x, states=states, **attributes)
    return b.output(y=b("relu", h))


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=12)
@given(
    drawn=convolutions(),
    dtype=st.sampled_from([DType.F32, DType.F32, DType.F64]),
    made=st.booleans(),
)
def test_drawn_convolutions(
    drawn: tuple[Any, dict[str, Any]], dtype: DType, made: bool, cpu: str
) -> None:
    graph = late_conv(*drawn, dtype, made)
    check(rewritten(graph), dtype, cpu)


LAYERS: dict[str, tuple[tuple[int, ...], dict[str, Any], str]] = {
    "3x3": ((1, 32, 14, 14), {"channels": 64, "kernel": (3, 3)}, "direct"),
    "strided": ((1, 32, 14, 14), {"channels": 64, "kernel": (3, 3), "stride": 2}, "direct"),
    "dilated": ((1, 32, 14, 14), {"channels": 64, "kernel": (3, 3), "dilation": 2}, "direct"),
    "pointwise": ((1, 32, 14, 14), {"channels": 64, "kernel": (1, 1)}, "direct"),
    "mirrored": ((1, 16, 14, 14), {"channels": 16, "kernel": (3, 3), "flip": True}, "direct"),
    "grouped": ((1, 64, 14, 14), {"channels": 64, "kernel": (3, 3), "groups": 4}, "direct"),
    "1-D": ((1, 16, 50), {"channels": 32, "kernel": (5,)}, "direct"),
    "3-D": ((1, 8, 5, 6, 7), {"channels": 16, "kernel": (3, 3, 3)}, "direct"),
    "depthwise": ((1, 32, 14, 14), {"channels": 32, "kernel": (3, 3), "groups": 32}, "depthwise"),
}


@pytest.mark.parametrize("made", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_convolutions_keep_their_schedules(layer: str, made: bool) -> None:
    shape, attributes, intended = LAYERS[layer]
    given_ = {"groups": 1, "bias": True, **attributes}
    machine = MACHINE.without("winograd")  # which has tests of its own
    lowered = lower(late_conv(shape, given_, DType.F32, made), machine, "late")
    steps = [step for step in lowered.program.steps if step.kernel.startswith("conv")]
    assert [step.schedule for step in steps] == [intended]
    packs = [step for step in lowered.program.steps if step.nodes[0].startswith("pack for")]
    assert packs


def test_one_value_packed_alike_is_packed_once() -> None:
    b = Builder()
    w = b.input("w", 32, 32, 3, 3)
    h = b("relu", b.input("x", 1, 32, 9, 9))
    for _ in range(3):
        h = b("conv", h, states={"weight": w}, channels=32, kernel=3, bias=False)
    graph = b.output(y=h)
    check(graph)
    steps = lower(graph, MACHINE, "shared").program.steps
    assert (
        len([s for s in steps if s.nodes[0].startswith("pack for")]) == 2
    )  # w, and x of the first


def test_a_factor_that_the_epilogue_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms of it are handed over, where it is packed."""
    monkeypatch.setattr(gemm_ways, "_own", lambda *_: None)
    b = Builder()
    a, w = b.input("a", 64, 64), b.input("w", 64, 64)
    y = b.graph.apply(SUM, {"a": a, "b": w}, {"formula": "mk,nk->mn"}, name="sum").output
    graph = rewritten(b.output(y=b("add", y, w)))
    found = check(graph)
    assert found[-1] == "gemm"
    assert len(found) == 2
    plain = Builder()
    a, w = plain.input("a", 64, 64), plain.input("w", 64, 64)
    assert check(rewritten(plain.output(y=plain("add", plain("matmul", a, w), w)))) == ["gemm"]


def test_a_matrix_times_itself() -> None:
    b = Builder()
    a = b.input("a", 48, 48)
    assert check(b.output(y=b("matmul", a, a))) == ["gemm"]


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("wide", [17, 45, 64, 77])
def test_rows_of_a_factor_are_read_where_they_lie(wide: int, cpu: str) -> None:
    """The last vector of a row in part: it reads nothing of the next row, nor past the end."""
    b = Builder()
    graph = b.output(y=b("matmul", b.input("a", 2, 33, 20), b.input("w", 2, 20, wide)))
    assert check(graph, cpu=cpu) == ["gemm"]
    assert check(graph, cpu=cpu, loops=True) == ["gemm"]


# Transposed convolutions that are convolutions


@st.composite
def unit_transposed(draw: st.DrawFn) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Stride 1: every output position is reached."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2, 5]))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(rank))
    attributes = {
        "channels": groups * draw(st.sampled_from([1, 3, 16, 32, 37])),
        "kernel": kernel,
        "dilation": tuple(draw(st.sampled_from([1, 1, 2])) for _ in range(rank)),
        "pad": tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel),
        "groups": groups,
    }
    space = [draw(st.integers(4, 20)) for _ in range(rank)]
    return (draw(st.integers(1, 2)), groups * draw(st.integers(1, 20)), *space), attributes


@pytest.mark.dear
@pytest.mark.parametrize("cpu", CPUS)
@settings(max_examples=12)
@given(drawn=unit_transposed(), late=st.booleans())
def test_drawn_transposed_convolutions(
    drawn: tuple[tuple[int, ...], dict[str, Any]], late: bool, cpu: str
) -> None:
    shape, attributes = drawn
    b = Builder()
    x = b("relu", b.input("x", *shape))
    count = attributes["channels"] // attributes["groups"]
    states = {"weight": b.input("w", shape[1], count, *attributes["kernel"])} if late else {}
    check(b.output(y=b("conv_transpose", x, states=states, **attributes)), cpu=cpu)


@pytest.mark.parametrize("groups", [1, 2, 32])
def test_transposed_convolutions_of_stride_1_run_as_convolutions(groups: int) -> None:
    b = Builder()
    x = b("relu", b.input("x", 1, 32, 14, 14))
    graph = b.output(y=b("conv_transpose", x, channels=32, kernel=3, pad=1, groups=groups))
    intended = "depthwise" if groups == 32 else "direct"
    found = [choice.schedule for choice in lower(graph, MACHINE.without("winograd"), "t").choices]
    assert found == ["flat", "transpose", intended, "transpose"]


def test_work_that_tiles_save_is_worth_a_pack() -> None:
    """One row does not pay for packing, and is added up where it lies; many rows do."""
    assert check_sum("mk,nk->mn", {"m": 1, "k": 64, "n": 64}) == ["reduction"]
    assert check_sum("mk,nk->mn", {"m": 64, "k": 64, "n": 64}) == ["gemm"]


def attention(batch: int, heads: int, tokens: int, width: int) -> Graph:
    """softmax(q k^T) v over heads, as networks write it, between linear layers."""
    b = Builder()
    x = b.input("x", batch, tokens, heads * width)
    split = [batch, tokens, heads, width]
    q, k, v = (
        b("transpose", b("reshape", b("linear", x, channels=heads * width), shape=split), axes=axes)
        for axes in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    shares = b("softmax", b("matmul", q, k), axis=-1)
    joined = b("transpose", b("matmul", shares, v), axes=[0, 2, 1, 3])
    y = b("reshape", joined, shape=[batch, tokens, heads * width])
    return rewritten(b.output(y=b("linear", y, channels=heads * width)))


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_attention(heads: int) -> None:
    """All six products on tiles; nothing is filled up to whole vectors of heads."""
    graph = attention(2, heads, 19, 24)
    assert check(graph).count("gemm") == 6
    kernels = lower(graph, MACHINE, "attention").program.kernels
    products = [k for k in kernels if k.name.startswith(("einsum", "matmul"))]
    made = [b for k in products for b in k.buffers if b.written and b.space is Space.GLOBAL]
    written = [b.size for b in made]
    assert written == [2 * heads * 19 * 19, 2 * heads * 19 * 24]

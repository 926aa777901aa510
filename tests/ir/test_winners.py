"""Gradients of maxima go where the forward pass says: to the first of equals, or to a NaN."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from executors import interpreted, machine_code, run_graph
from gradients import check_graph, with_gradients
from graphs import Builder, evaluate_graph, random_arrays, rewritten, structure

from convdsl.ir.graph import Graph, OpNode
from convdsl.ir.verify import verify
from convdsl.tensor import DType

Window = dict[str, object]

WINDOWS: list[tuple[tuple[int, ...], Window]] = [
    ((2, 3, 8), {"kernel": 2}),
    ((2, 16, 9, 7), {"kernel": 3, "stride": 2, "pad": 1}),
    ((1, 19, 6, 6), {"kernel": (3, 2), "stride": 1, "pad": 1}),
    ((1, 16, 7, 8), {"kernel": 2, "stride": 3, "dilation": 2}),
    ((1, 16, 7, 8), {"kernel": 3, "stride": 2, "ceil_mode": True}),
    ((1, 16, 17, 17), {"kernel": 16, "stride": 1}),
    ((2, 17, 5, 4), {"kernel": "global"}),
]


def pooled(shape: tuple[int, ...], op: str = "max_pool", **attributes: object) -> Graph:
    b = Builder()
    graph = b.output(y=b(op, b.input("x", *shape), name="pool", **attributes))
    graph, found = with_gradients(graph, graph.inputs)
    graph.outputs |= {"dx": found["x"]}  # type: ignore[dict-item]
    verify(graph)
    return graph


def by_hand(x: np.ndarray, dy: np.ndarray, window: Window) -> np.ndarray:
    """A loop over windows: the first maximum, or NaN, of the positions inside takes all."""
    rank = x.ndim - 2

    def each(name: str, default: int) -> tuple[int, ...]:
        value = window.get(name, default)
        return value if isinstance(value, tuple) else (value,) * rank  # type: ignore[return-value]

    whole = window["kernel"] == "global"
    kernel = x.shape[2:] if whole else each("kernel", 1)
    stride = kernel if "stride" not in window else each("stride", 1)
    pad, dilation = each("pad", 0), each("dilation", 1)
    dx = np.zeros(x.shape)
    for at in np.ndindex(*dy.shape):
        best: tuple[int, ...] | None = None
        for taps in product(*map(range, kernel)):
            steps = zip(at[2:], stride, taps, dilation, pad, strict=True)
            here = (*at[:2], *(o * s + t * d - p for o, s, t, d, p in steps))
            if any(not 0 <= i < n for i, n in zip(here[2:], x.shape[2:], strict=True)):
                continue
            if best is None or x[here] > x[best] or (np.isnan(x[here]) and not np.isnan(x[best])):
                best = here
        assert best is not None
        dx[best] += dy[at]
    return dx


@pytest.mark.dear
@pytest.mark.drawn(share=3)
@pytest.mark.parametrize(("shape", "window"), WINDOWS)
@pytest.mark.parametrize("values", ["few", "infinite", "nan"])
def test_the_first_of_equals_takes_the_gradient(
    shape: tuple[int, ...], window: Window, values: str
) -> None:
    graph = pooled(shape, **window)
    random = np.random.default_rng(len(shape))
    x = random.integers(0, 3, shape).astype(np.float32)
    x = np.where(x == 0, -np.inf, x) if values == "infinite" else x
    x = np.where(x == 1, np.nan, x) if values == "nan" else x
    dy = random.standard_normal(graph.outputs["y"].type.sizes).astype(np.float32)
    arrays = {"x": x.astype(np.float32), "d_y": dy}
    expected = by_hand(arrays["x"], dy, window)
    np.testing.assert_allclose(evaluate_graph(graph, arrays)["dx"], expected, atol=1e-12)
    graph = rewritten(graph)
    for runner in (machine_code, interpreted) if x.size < 1000 else (machine_code,):
        found = run_graph(graph, arrays, runner)
        np.testing.assert_allclose(found["dx"], expected, rtol=0, atol=1e-5)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize(("shape", "size"), [((2, 3, 7), (3,)), ((2, 17, 9, 6), (4, 4))])
def test_windows_of_several_sizes(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    graph = pooled(shape, "adaptive_max_pool", size=size)
    random = np.random.default_rng(0)
    x = random.permutation(int(np.prod(shape))).reshape(shape).astype(np.float32)
    dy = random.standard_normal((*shape[:2], *size)).astype(np.float32)
    expected = np.zeros_like(x)
    for at in np.ndindex(*dy.shape):
        sizes = zip(at[2:], shape[2:], size, strict=True)
        part = tuple(slice(o * e // n, -(-(o + 1) * e // n)) for o, e, n in sizes)
        plane, grad = x[at[:2]][part], expected[at[:2]][part]
        grad[np.unravel_index(np.argmax(plane), plane.shape)] += dy[at]
    for found in (
        evaluate_graph(graph, {"x": x, "d_y": dy}),
        run_graph(rewritten(graph), {"x": x, "d_y": dy}, machine_code),
    ):
        np.testing.assert_allclose(found["dx"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("op", ["max_pool_with_positions", "top_k"])
def test_positions_that_are_put_out_say_where(op: str) -> None:
    """The forward pass is not repeated: the gradient reads what it put out."""
    attributes = {"k": 3, "axis": 2} if op == "top_k" else {"kernel": 3, "stride": 2, "pad": 1}
    b = Builder()
    y = b(op, b.input("x", 2, 5, 9, 6, dtype=DType.F64), name="f", **attributes)
    graph = b.output(y=y)
    assert check_graph(graph, random_arrays(graph, 2), 2) == 1
    assert structure(graph)[1:] == [f"f.dx = {op}.picked.grad(x)(f:positions, d_y)"]


def test_nothing_is_recorded_for_nothing() -> None:
    """Without a gradient the forward pass is what it was; with one it is computed once."""
    b = Builder()
    graph = b.output(y=b("max_pool", b.input("x", 1, 16, 8, 8), kernel=2, name="pool"))
    (node,) = graph.op_nodes()
    assert len(node.outputs) == 1
    graph = pooled((1, 16, 8, 8), kernel=2)
    assert structure(graph) == [
        "pool = max_pool.keeping(tap)(x)",
        "pool.dx = max_pool.picked.grad(x)(pool:tap, d_y)",
    ]
    node = graph.op_nodes()[0]
    assert isinstance(node, OpNode)
    assert node.outputs[1].type.dtype is DType.U8


def test_gradients_of_gradients() -> None:
    b = Builder()
    x = b.input("x", 2, 3, 6, dtype=DType.F64)
    graph = b.output(y=b("max_pool", b("mul", x, x), kernel=3, stride=2, pad=1))
    graph, found = with_gradients(graph, graph.inputs)
    graph.outputs = {"g": b.build("mul", found["x"], found["x"])}  # type: ignore[arg-type]
    check_graph(graph, random_arrays(graph, 5), 5)

"""Gradients of whole graphs: branches, shared weights, what is pruned, and models of gradients."""

from __future__ import annotations

import re

import numpy as np
import pytest
from gradients import check_graph, differences, floating, gradient_graph, with_gradients
from graphs import Builder, evaluate_graph, random_arrays, rewritten
from random_graphs import smooth_graph
from small_models import RESIDUAL

import convdsl
from convdsl.autodiff import NoGradient, backward
from convdsl.autodiff.text import format_backward
from convdsl.diagnostics import InputError
from convdsl.ir.canonical import canonical_text
from convdsl.ir.graph import Graph
from convdsl.ir.model import Model
from convdsl.ir.text import format_graph
from convdsl.ir.verify import verify
from convdsl.tensor import DType

F64 = DType.F64

SELECTING = """
model selecting {
    input x: f32[4, 4]
    input i: i64[4]
    output y = x -> argmax
    output z = x -> exp
}
"""


def branched() -> Graph:
    """A convolution whose output two branches read, which meet again."""
    b = Builder()
    x = b.input("x", 2, 3, 6, 6, dtype=F64)
    stem = b("conv", x, channels=4, kernel=3)
    left = b("sigmoid", b("conv", stem, channels=4, kernel=3, bias=False))
    right = b("batch_norm", stem)
    y = b("mul", b("add", left, right), stem)
    return b.output(y=b("linear", b("flatten", b("avg_pool", y, kernel=2)), channels=3))


def shared() -> Graph:
    """One filter used twice, and a weight that is used twice by one operator."""
    b = Builder()
    x = b.input("x", 2, 3, 5, dtype=F64)
    w = b.parameter("w", 3, 3, 3, dtype=F64)
    once = b("conv", x, states={"weight": w}, channels=3, kernel=3, bias=False)
    twice = b("conv", b("tanh", once), states={"weight": w}, channels=3, kernel=3, bias=False)
    scale = b.parameter("scale", 3, 1, dtype=F64)
    return b.output(y=b("mul", twice, b("mul", scale, scale)), z=once)


@pytest.mark.dear(share=4)
@pytest.mark.parametrize("make", [branched, shared])
def test_branches_and_shared_weights_are_summed(make: object) -> None:
    graph = make()  # type: ignore[operator]
    arrays = random_arrays(graph, 3)
    wanted = len(floating(graph))
    assert check_graph(graph, arrays, 3) == wanted


def test_only_what_is_wanted_is_computed() -> None:
    graph = branched()
    weight = graph.states["linear1.weight"].output
    before = len(graph)
    graph, found = with_gradients(graph, {"w": weight})
    assert found["w"] is not None
    assert len(graph) == before + 2  # dy, and the one gradient
    assert found["w"].node.op.name == "linear.grad(weight)"  # type: ignore[attr-defined]


STOPPING = """
model stopping {
    input x: f32[N, 4, 6, 6]
    h = x -> conv(4, 3x3) as c
    gate = h -> avg_pool(global) -> stop_gradient
    output y = h * gate
}
"""


def test_a_stopped_gradient_flows_no_further() -> None:
    """Differences are of the graph with the stopped value held."""
    model = convdsl.parse(STOPPING)
    graph = model.graph.bind({"N": 2})
    arrays = random_arrays(graph, 1)
    found = convdsl.gradient(model, "y", ["x", "c.*"]).graph.bind({"N": 2})
    results = evaluate_graph(found, arrays)
    dys = {"y": np.ones((2, 4, 6, 6))}
    for name in ("x", "c.weight", "c.bias"):
        expected = differences(graph, arrays, dys, name, range(3))
        np.testing.assert_allclose(results[f"d{name}"].reshape(-1)[:3], expected, 1e-3, 1e-5)


def test_at_inference_nothing_is_left_of_a_stop() -> None:
    graph = convdsl.parse(STOPPING).graph
    assert [n.op.name for n in rewritten(graph.copy()).op_nodes()] == [
        "conv",
        "avg_pool",
        "mul",
    ]


def test_what_is_not_read_has_no_gradient() -> None:
    b = Builder()
    x, other = b.input("x", 2, 3, dtype=F64), b.input("other", 2, 3, dtype=F64)
    rounded = b("floor", other)
    graph = b.output(y=b("add", b("exp", x), rounded), unused=b("neg", x))
    del graph.outputs["unused"]
    graph, found = with_gradients(graph, floating(graph))
    assert found["x"] is not None
    assert found["other"] is None


@pytest.mark.dear
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("conv", {"channels": 2, "kernel": 3, "bias": False}),
        ("conv", {"channels": 2, "kernel": 3, "stride": 2, "bias": False}),
        ("avg_pool", {"kernel": 2}),
        ("max_pool", {"kernel": 2}),
        ("softmax", {}),
        ("gelu", {}),
        ("sigmoid", {}),
        ("layer_norm", {}),
        ("reduce_l2", {"axes": (1,)}),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_second_derivatives(op: str, attributes: dict[str, object]) -> None:
    """Differences of gradients: of the sum of squares of dx, by every operand."""
    b = Builder()
    x = b.input("x", 1, 2, 6, dtype=F64)
    y = b(op, b("mul", x, x), **attributes)
    graph = b.output(y=b("mul", y, y))
    arrays = random_arrays(graph, 5)
    graph, found = with_gradients(graph, {"x": x})
    dx = found["x"]
    assert dx is not None
    arrays["d_y"] = np.random.default_rng(5).standard_normal(graph.inputs["d_y"].type.sizes)
    graph.outputs = {"dx": dx}
    check_graph(graph, arrays, 5)


def test_gradients_survive_all_passes() -> None:
    model = convdsl.parse(
        RESIDUAL.replace("[N, 3, H, W] where H % 4 == 0 and W >= 6", "[2, 3, 8, 8]")
    )
    found = convdsl.gradient(model, wrt=["image", "*.weight"])
    verify(found.graph)
    arrays = random_arrays(found.graph, 1)
    before, after = (
        evaluate_graph(g, arrays) for g in (found.graph, rewritten(found.graph.copy()))
    )
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-4, atol=1e-5 * np.max(np.abs(array)))


@pytest.mark.dear(share=4)
def test_a_model_of_gradients_runs_and_reports() -> None:
    """With free sizes; against differences of the forward model in double precision."""
    model = convdsl.parse(RESIDUAL)
    found = convdsl.gradient(model, "logits", ["image", "conv*.weight"])
    assert list(found.outputs) == ["logits", "dimage", "dconv.weight", "dconv_2.weight"]
    bound = model.graph.bind({"N": 2, "H": 12, "W": 12})
    arrays = random_arrays(bound, 1)
    weights = {n: a.astype("f4") for n, a in arrays.items() if n != "image"}
    results = convdsl.compile(found, weights, cache=False)(arrays["image"].astype("f4"))
    dimage = results["dimage"]
    assert dimage.shape == (2, 3, 12, 12)
    places = [0, 100, 431]
    expected = differences(bound, arrays, {"logits": np.ones((2, 5))}, "image", places)
    np.testing.assert_allclose(dimage.reshape(-1)[places], expected, rtol=1e-3, atol=1e-4)
    assert "dimage" in str(convdsl.report(found, inputs=(3, 12, 12)))


def test_text_forms_tell_gradients_apart() -> None:
    graph = branched()
    graph, found = with_gradients(graph, floating(graph))
    graph.outputs = {n: value for n, value in found.items() if value is not None}
    text = format_graph(graph)
    assert "conv.grad(weight)(" in text
    assert "conv.grad(x)(" in canonical_text(graph)
    assert canonical_text(graph) == canonical_text(graph.copy())


@pytest.mark.parametrize("seed", range(20))
def test_the_text_names_every_gradient_once(seed: int) -> None:
    """And what they read stands above them: gradients, or what is kept."""
    graph = smooth_graph(seed)
    model = Model("drawn", graph)
    wrt = sorted(floating(graph))
    text = format_backward(*backward(model, "logits", wrt))
    kept, _, made = text.partition("gradients, from the last to the first\n")
    known = set(graph.states)
    for line in kept.splitlines()[2:]:
        left, _, _ = line.strip().partition(" = ")
        known |= {part.removeprefix("input ").partition(": ")[0] for part in left.split(", ")}
    names: list[str] = []
    for line in made.splitlines():
        left, _, right = line.strip().partition(" = ")
        call = re.search(r"\(([^()]*)\)(?: [\w.]+=\S+)*: \w+\[", right)
        read = {right} if call is None else set(call.group(1).split(", "))
        assert {r for r in read if not re.match(r"-?[\d.e]+$", r)} <= known, line
        names += left.split(", ")
        known |= {*names}
    assert len(set(names)) == len(names)
    found = gradient_graph(graph, {name: floating(graph)[name] for name in wrt})
    assert {f"d{name}" for name in found.outputs if name != "x"} & set(names)


def test_what_cannot_be_asked_is_said() -> None:
    model = convdsl.parse(SELECTING)
    with pytest.raises(InputError, match="several outputs"):
        convdsl.gradient(model)
    with pytest.raises(InputError, match="floating"):
        convdsl.gradient(model, "y")
    with pytest.raises(InputError, match="no output q"):
        convdsl.gradient(model, "q")
    with pytest.raises(InputError, match="no input or weight w"):
        convdsl.gradient(model, "z", "w")
    with pytest.raises(InputError, match="i is i64"):
        convdsl.gradient(model, "z", "i")
    with pytest.raises(InputError, match="derived gradient"):
        convdsl.export(convdsl.gradient(model, "z", "x"), to="pytorch")
    assert issubclass(NoGradient, InputError)

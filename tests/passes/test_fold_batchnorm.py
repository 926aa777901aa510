"""Batch normalisation disappears into its neighbours; the numbers stay."""

from __future__ import annotations

import pytest
from graphs import Builder, assert_same_numbers, rewritten, structure

from convdsl.ir.graph import Graph
from convdsl.ir.timing import bound_nodes
from convdsl.passes.fold_batchnorm import FoldBatchNorm


def run_time(graph: Graph) -> list[str]:
    """The structure without what is computed at weight time."""
    early = bound_nodes(graph)
    names = {n.name for n in graph.op_nodes() if n.id not in early}
    return [line for line in structure(graph) if line.split(" = ")[0] in names]


@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "biasless"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_into_the_convolution_before(affine: bool, bias: bool, groups: int) -> None:
    b = Builder()
    x = b.input("x", 2, 4, 7, 7)
    h = b("conv", x, channels=8, kernel=3, stride=2, groups=groups, bias=bias)
    graph = b.output(y=b("batch_norm", h, affine=affine))
    after = rewritten(graph, FoldBatchNorm())
    (line,) = run_time(after)
    assert line.startswith("conv1 = conv(x, conv1.weight_folded, ")
    conv = after.outputs["y"].node
    assert conv.attributes["bias"] is True
    assert conv.attributes["stride"] == (2, 2)
    assert "conv1.weight" in after.states
    assert ("conv1.bias" in after.states) == bias
    assert_same_numbers(graph, after)


def test_into_one_and_three_dimensions() -> None:
    b = Builder()
    signal, volume = b.input("signal", 2, 3, 9), b.input("volume", 1, 2, 4, 5, 6)
    b.output(
        a=b("batch_norm", b("conv", signal, channels=4, kernel=3, dilation=2)),
        b=b("batch_norm", b("conv", volume, channels=4, kernel=3)),
    )
    after = rewritten(b.graph, FoldBatchNorm())
    assert [line.split("(")[0] for line in run_time(after)] == ["conv1 = conv", "conv2 = conv"]
    assert_same_numbers(b.graph, after)


def test_into_the_linear_layer_before() -> None:
    b = Builder()
    graph = b.output(y=b("batch_norm", b("linear", b.input("x", 3, 6), channels=5)))
    after = rewritten(graph, FoldBatchNorm())
    assert run_time(after) == ["linear1 = linear(x, linear1.weight_folded, linear1.bias_folded)"]
    assert_same_numbers(graph, after)


@pytest.mark.drawn(share=3)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "biasless"])
@pytest.mark.parametrize(
    ("pad", "mode"), [("valid", "zeros"), (2, "reflect"), (1, "circular"), (1, "replicate")]
)
def test_into_the_convolution_after(groups: int, bias: bool, pad, mode: str) -> None:
    b = Builder()
    h = b("relu", b("batch_norm", b("relu", b.input("x", 2, 4, 9, 8))))
    del h
    n = b("batch_norm", b("relu", b.graph.inputs["x"]))
    y = b("conv", n, channels=6, kernel=(3, 2), stride=2, groups=groups, bias=bias, pad=pad,
          dilation=(1, 2), pad_mode=mode)  # fmt: skip
    b.output(y=y)
    graph = rewritten(b.graph)  # without the dead branch
    assert not any(n.op.name == "batch_norm" for n in graph.op_nodes())
    after = rewritten(b.graph, FoldBatchNorm())
    assert run_time(after)[-1].startswith("conv1 = conv(relu3, conv1.weight_folded")
    assert_same_numbers(b.graph, after)


def test_into_the_linear_layer_after() -> None:
    b = Builder()
    n = b("batch_norm", b("relu", b.input("x", 3, 6)))
    graph = b.output(y=b("linear", n, channels=5, bias=False))
    after = rewritten(graph, FoldBatchNorm())
    assert run_time(after) == [
        "relu1 = relu(x)",
        "linear1 = linear(relu1, linear1.weight_folded, linear1.shift_bias)",
    ]
    assert_same_numbers(graph, after)


def test_on_both_sides_at_once() -> None:
    b = Builder()
    n = b("batch_norm", b.input("x", 2, 4, 6, 6))
    graph = b.output(y=b("batch_norm", b("conv", n, channels=6, kernel=3, pad=0)))
    after = rewritten(graph, FoldBatchNorm())
    (line,) = run_time(after)
    assert line.startswith("conv1 = conv(x, ")
    assert_same_numbers(graph, after)


def test_zero_padding_keeps_it_before_the_convolution() -> None:
    """Zeros are padded after normalisation: the shift must not reach them."""
    b = Builder()
    n = b("batch_norm", b("relu", b.input("x", 2, 4, 6, 6)))
    graph = b.output(y=b("conv", n, channels=6, kernel=3))
    after = rewritten(graph, FoldBatchNorm())
    assert run_time(after) == [
        "relu1 = relu(x)",
        "batch_norm1.scaled = mul(relu1, batch_norm1.scale_map)",
        "batch_norm1 = add(batch_norm1.scaled, batch_norm1.shift_map)",
        "conv1 = conv(batch_norm1, conv1.weight, conv1.bias)",
    ]
    assert_same_numbers(graph, after)


def test_a_convolution_with_other_users_keeps_its_weights() -> None:
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=3)
    graph = b.output(y=b("add", h, b("batch_norm", h)))
    after = rewritten(graph, FoldBatchNorm())
    assert "conv1 = conv(x, conv1.weight, conv1.bias)" in run_time(after)
    assert_same_numbers(graph, after)
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=3)
    graph = b.output(y=b("batch_norm", h), h=h)
    after = rewritten(graph, FoldBatchNorm())
    assert "conv1 = conv(x, conv1.weight, conv1.bias)" in run_time(after)
    assert_same_numbers(graph, after)


def test_shared_weights_fold_separately() -> None:
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    first = b("conv", x, channels=4, kernel=3, bias=False)
    weight = {"weight": b.graph.states["conv1.weight"].output}
    h = b("relu", b("batch_norm", first))
    second = b("conv", h, channels=4, kernel=3, bias=False, states=weight)
    graph = b.output(y=b("batch_norm", second))
    after = rewritten(graph, FoldBatchNorm())
    assert [line.split("(")[0] for line in run_time(after)] == [
        "conv1 = conv",
        "relu1 = relu",
        "conv2 = conv",
    ]
    assert_same_numbers(graph, after)


def test_statistics_that_are_computed_at_run_time_are_left_alone() -> None:
    b = Builder()
    h = b("conv", b.input("x", 2, 4, 6, 6), channels=4, kernel=3)
    graph = b.output(y=b("batch_norm", h, states={"running_mean": b.input("mean", 4)}))
    after = rewritten(graph, FoldBatchNorm())
    assert structure(after) == structure(graph)


def test_expansion_can_be_declined() -> None:
    b = Builder()
    graph = b.output(y=b("batch_norm", b("relu", b.input("x", 2, 4, 6, 6))))
    after = rewritten(graph, FoldBatchNorm(expand=False))
    assert structure(after) == structure(graph)


def test_double_precision_and_a_symbolic_batch() -> None:
    from convdsl.tensor import DType, symbol

    b = Builder()
    x = b.input("x", symbol("N"), 4, 6, 6, dtype=DType.F64)
    graph = b.output(y=b("batch_norm", b("conv", x, channels=4, kernel=3)))
    after = rewritten(graph, FoldBatchNorm())
    assert run_time(after) == ["conv1 = conv(x, conv1.weight_folded, conv1.bias_folded)"]
    bound = [g.bind({"N": 3}) for g in (graph, after)]
    assert_same_numbers(*bound, tolerance=1e-12)

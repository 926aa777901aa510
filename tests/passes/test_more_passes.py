"""Common subexpressions, padding, transposes, reshapes: structure and numbers."""

from __future__ import annotations

from typing import Any

import pytest
from graphs import Builder, assert_same_numbers, rewritten, structure
from random_graphs import random_graph

from convdsl.ir.graph import Graph
from convdsl.passes.absorb_transposes import AbsorbTransposes
from convdsl.passes.cancel_transposes import CancelTransposes
from convdsl.passes.canonicalise import Canonicalise
from convdsl.passes.common_subexpressions import CommonSubexpressions
from convdsl.passes.fold_batchnorm import FoldBatchNorm
from convdsl.passes.fold_padding import FoldPadding
from convdsl.tensor import DType, symbol

# Common subexpressions


def test_equal_work_is_done_once() -> None:
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    one, two = b("relu", x), b("relu", x)
    left = b("max_pool", one, kernel=2)
    right = b("max_pool", two, kernel=2)
    other = b("max_pool", two, kernel=2, stride=1, pad=((0, 1), (0, 1)))
    del other
    graph = b.output(y=b("add", left, right))
    after = rewritten(graph, CommonSubexpressions())
    assert structure(after) == [
        "relu1 = relu(x)",
        "max_pool1 = max_pool(relu1)",
        "max_pool3 = max_pool(relu1)",
        "add1 = add(max_pool1, max_pool1)",
    ]
    assert_same_numbers(graph, after)


def test_equal_constants_become_one_and_parameters_never() -> None:
    b = Builder()
    x = b.input("x", 2, 4)
    h = b("add", b("mul", x, b.constant("c", [1.0, 2, 3, 4])), b.constant("d", [1.0, 2, 3, 4]))
    h = b("mul", h, b.parameter("p", 4))
    graph = b.output(y=b("mul", h, b.parameter("q", 4)))
    after = rewritten(graph, CommonSubexpressions())
    assert list(after.states) == ["c", "p", "q"]
    assert_same_numbers(graph, after)


def test_weights_make_a_difference_and_shared_ones_none() -> None:
    b = Builder()
    x = b.input("x", 2, 4, 6, 6)
    first, second = (b("conv", x, channels=4, kernel=3, bias=False) for _ in range(2))
    weight = {"weight": b.graph.states["conv1.weight"].output}
    third = b("conv", x, channels=4, kernel=3, bias=False, states=weight)
    graph = b.output(y=b("add", b("add", first, second), third))
    after = rewritten(graph, CommonSubexpressions())
    assert structure(after)[-1] == "add2 = add(add1, conv1)"
    assert len(after.op_nodes()) == 4
    assert_same_numbers(graph, after)


def test_model_outputs_stay_distinct() -> None:
    b = Builder()
    x = b.input("x", 2, 4)
    graph = b.output(y=b("relu", x), z=b("relu", x), w=b("add", b("relu", x), x))
    after = rewritten(graph, CommonSubexpressions())
    assert structure(after) == ["relu1 = relu(x)", "relu2 = relu(x)", "add1 = add(relu1, x)"]
    assert after.outputs["y"] is not after.outputs["z"]
    assert_same_numbers(graph, after)


# Padding


def padded(op: str, border: dict[str, Any], **attributes: Any) -> Graph:
    b = Builder()
    h = b("pad", b.input("x", 2, 4, 7, 8), **border)
    more = {"channels": 3} if op == "conv" else {}
    more |= {"kernel": 3} if op == "conv" or op.endswith("pool") else {}
    return b.output(y=b(op, h, **(more | attributes)))


MINUS = -float("inf")


@pytest.mark.parametrize(
    ("op", "pad", "attributes", "expected"),
    [
        ("conv", {"pad": 1}, {"pad": 0}, ((1, 1), (1, 1))),
        ("conv", {"pad": ((0, 1), (2, 1))}, {"pad": 1, "stride": 2}, ((1, 2), (3, 2))),
        ("conv", {"pad": 2, "mode": "reflect"}, {"pad": 0}, ((2, 2), (2, 2))),
        ("conv", {"pad": 2, "mode": "circular"}, {"pad": 0}, ((2, 2), (2, 2))),
        ("conv", {"pad": 3, "axes": (3,)}, {"pad": 0}, ((0, 0), (3, 3))),
        ("avg_pool", {"pad": 1}, {}, ((1, 1), (1, 1))),
        ("max_pool", {"pad": 1, "value": MINUS}, {}, ((1, 1), (1, 1))),
    ],
)
def test_padding_folds_into_the_window(op: str, pad, attributes, expected) -> None:
    graph = padded(op, pad, **attributes)
    after = rewritten(graph, FoldPadding())
    node = after.outputs["y"].node
    assert [n.name for n in after.op_nodes()] == [f"{op}1"]
    assert node.attributes["pad"] == expected
    assert_same_numbers(graph, after)


@pytest.mark.parametrize(
    ("op", "pad", "attributes"),
    [
        ("conv", {"pad": 1, "value": 1.0}, {}),
        ("conv", {"pad": 1, "mode": "reflect"}, {"pad": 1}),
        ("conv", {"pad": 1}, {"pad": 1, "pad_mode": "reflect"}),
        ("conv", {"pad": ((1, 1),), "axes": (1,)}, {}),
        ("max_pool", {"pad": 1}, {}),
        ("max_pool", {"pad": 2, "value": MINUS}, {}),  # more than half a window
        ("avg_pool", {"pad": 1}, {"count_include_pad": False}),
        ("avg_pool", {"pad": 1}, {"ceil_mode": True}),
        ("avg_pool", {"pad": 1, "mode": "replicate"}, {}),
        ("avg_pool", {"pad": 1}, {"kernel": "global"}),  # the mean counts the border
        ("max_pool", {"pad": 1, "value": MINUS}, {"kernel": "global"}),
        ("lp_pool", {"pad": 1}, {}),
        ("pad", {"pad": 1}, {"pad": ((1, 0),), "axes": (3,)}),
        ("reduce_mean", {"pad": 1}, {"axes": (2, 3)}),
    ],
)
def test_padding_that_the_window_cannot_do_stays(op: str, pad, attributes) -> None:
    graph = padded(op, pad, **attributes)
    after = rewritten(graph, FoldPadding())
    assert structure(after) == structure(graph)


def test_padding_with_other_readers_stays_for_them() -> None:
    b = Builder()
    h = b("pad", b.input("x", 2, 4, 6, 6), pad=1)
    graph = b.output(y=b("conv", h, channels=4, kernel=3, pad=0), z=b("relu", h))
    after = rewritten(graph, FoldPadding())
    assert structure(after) == [
        "pad1 = pad(x)",
        "relu1 = relu(pad1)",
        "conv1 = conv(x, conv1.weight, conv1.bias)",
    ]
    assert_same_numbers(graph, after)


def test_padding_with_symbolic_sizes() -> None:
    b = Builder()
    h = b("pad", b.input("x", symbol("N"), 4, symbol("H"), 8), pad=1)
    graph = b.output(y=b("conv", h, channels=4, kernel=3, pad="same", stride=2))
    assert structure(rewritten(graph, FoldPadding())) == structure(graph)
    graph = b.output(y=b("conv", h, channels=4, kernel=3, pad=0, stride=2))
    after = rewritten(graph)
    assert structure(after) == ["conv2 = conv(x, conv2.weight, conv2.bias)"]
    bound = [g.bind({"N": 2, "H": 7}) for g in (graph, after)]
    assert_same_numbers(*bound)


# Transposes and reshapes


def test_inverse_transposes_cancel_across_maps() -> None:
    b = Builder()
    x = b("relu", b.input("x", 2, 3, 4, 5))
    h = b("transpose", x, axes=(0, 2, 3, 1))
    h = b("sigmoid", b("relu6", h))
    graph = b.output(y=b("tanh", b("transpose", h, axes=(0, 3, 1, 2))))
    after = rewritten(graph, CancelTransposes())
    assert structure(after) == [
        "relu1 = relu(x)",
        "relu61 = relu6(relu1)",
        "sigmoid1 = sigmoid(relu61)",
        "tanh1 = tanh(sigmoid1)",
    ]
    assert_same_numbers(graph, after)


def test_other_transposes_become_one() -> None:
    b = Builder()
    h = b("transpose", b.input("x", 2, 3, 4, 5), axes=(1, 0, 2, 3))
    graph = b.output(y=b("transpose", b("relu", h), axes=(3, 1, 0, 2)))
    after = rewritten(graph, CancelTransposes())
    assert [n.op.name for n in after.op_nodes()] == ["relu", "transpose"]
    assert after.outputs["y"].node.attributes["axes"] == (3, 0, 1, 2)
    assert after.outputs["y"].name == "transpose2"
    assert_same_numbers(graph, after)


def test_transposes_that_others_read_stay() -> None:
    b = Builder()
    h = b("transpose", b.input("x", 2, 3, 4, 5), axes=(0, 1, 3, 2))
    r = b("relu", h)
    graph = b.output(y=b("relu6", b("transpose", r, axes=(0, 1, 3, 2))), r=r)
    assert structure(rewritten(graph, CancelTransposes())) == structure(graph)
    b = Builder()
    h = b("transpose", b.input("x", 2, 3, 4, 5), axes=(0, 1, 3, 2))
    s = b("softmax", h)
    graph = b.output(y=b("relu", b("transpose", s, axes=(0, 1, 3, 2))))
    assert structure(rewritten(graph, CancelTransposes())) == structure(graph)


def test_a_factor_is_read_along_the_sum() -> None:
    b = Builder()
    turned = b("transpose", b("relu", b.input("y", 2, 7, 3, 5)), axes=(0, 2, 3, 1))
    graph = b.output(z=b("matmul", b.input("x", 2, 3, 4, 5), turned))
    after = rewritten(graph, AbsorbTransposes())
    assert structure(after) == ["relu1 = relu(y)", "matmul1 = einsum(x, relu1)"]
    assert after.outputs["z"].node.attributes["equation"] == "abcd,aebd->abce"
    assert_same_numbers(graph, after)


def test_factors_that_lie_otherwise_are_not_absorbed() -> None:
    """The sum runs across rows, leading axes broadcast, or something else reads it too."""
    for shape, axes, other in (
        ((2, 5, 7), (0, 1, 2), (2, 4, 5)),
        ((7, 5, 2), (2, 1, 0), (2, 4, 5)),
        ((1, 7, 5), (0, 2, 1), (2, 4, 5)),
    ):
        b = Builder()
        turned = b("transpose", b.input("y", *shape), axes=axes)
        graph = b.output(z=b("matmul", b.input("x", *other), turned))
        assert structure(rewritten(graph, AbsorbTransposes())) == structure(graph)
    b = Builder()
    turned = b("transpose", b.input("y", 7, 5), axes=(1, 0))
    graph = b.output(z=b("matmul", b.input("x", 4, 5), turned), y=b("relu", turned))
    assert structure(rewritten(graph, AbsorbTransposes())) == structure(graph)


def test_a_model_output_stays_a_computed_value() -> None:
    b = Builder()
    h = b("transpose", b.input("x", 2, 3), axes=(1, 0))
    graph = b.output(y=b("transpose", h, axes=(1, 0)))
    assert structure(rewritten(graph, CancelTransposes())) == structure(graph)


def test_reshapes_join() -> None:
    b = Builder()
    h = b("relu", b.input("x", symbol("N"), 6, 4))
    h = b("flatten", b("reshape", h, shape=(-1, 2, 3, 4)))
    graph = b.output(y=b("relu", b("reshape", h, shape=(-1, 4, 6))))
    after = rewritten(graph, Canonicalise())
    assert structure(after) == [
        "relu1 = relu(x)",
        "reshape2 = reshape(relu1)",
        "relu2 = relu(reshape2)",
    ]
    assert_same_numbers(graph.bind({"N": 2}), after.bind({"N": 2}))
    b = Builder()
    h = b("relu", b.input("x", 2, 6, 4))
    graph = b.output(y=b("relu", b("reshape", b("flatten", h), shape=(2, 6, 4))))
    after = rewritten(graph, Canonicalise())
    assert structure(after) == ["relu1 = relu(x)", "relu2 = relu(relu1)"]
    assert_same_numbers(graph, after)


# Batch normalisation and transposed convolutions


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "biasless"])
def test_batch_norm_folds_into_the_transposed_convolution_before(groups: int, bias) -> None:
    b = Builder()
    h = b("conv_transpose", b.input("x", 2, 4, 5, 4), channels=6, kernel=(3, 2), stride=2,
          groups=groups, bias=bias, output_pad=1)  # fmt: skip
    graph = b.output(y=b("batch_norm", h))
    after = rewritten(graph, FoldBatchNorm())
    names = [n.op.name for n in after.op_nodes()]
    assert "batch_norm" not in names
    assert after.outputs["y"].name == "conv_transpose1"
    assert after.outputs["y"].node.attributes["output_pad"] == (1, 1)
    assert_same_numbers(graph, after)


def test_batch_norm_before_a_transposed_convolution_stays_outside() -> None:
    """At its borders fewer taps meet the shift: no bias could make up for that."""
    b = Builder()
    n = b("batch_norm", b("relu", b.input("x", 2, 4, 5, 4)))
    graph = b.output(y=b("conv_transpose", n, channels=3, kernel=3))
    after = rewritten(graph, FoldBatchNorm())
    line = next(x for x in structure(after) if x.startswith("conv_transpose1 ="))
    assert line == (
        "conv_transpose1 = conv_transpose(batch_norm1, conv_transpose1.weight,"
        " conv_transpose1.bias)"
    )
    assert_same_numbers(graph, after)


@pytest.mark.dear
def test_all_together_on_deeper_graphs() -> None:
    for seed in range(300, 320):
        graph = random_graph(seed, length=20, dtype=DType.F64)
        assert_same_numbers(graph, rewritten(graph), seed, tolerance=1e-9)

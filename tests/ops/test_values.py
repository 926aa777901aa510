"""Values where operators are easily wrong: NaN, infinities, ties, extremes, counts."""

from __future__ import annotations

from itertools import product
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from op_cases import CASES_PER_OPERATOR, draw_case

from convdsl.ir.opdef import Call
from convdsl.kernel.evaluate import evaluate
from convdsl.ops import BY_NAME, SPELLINGS
from convdsl.tensor import DType, TensorType, substitute, symbol


def run(name: str, x: Any, dtype: DType = DType.F32, **attributes: Any) -> dict[str, Any]:
    array = np.asarray(x, dtype.numpy)
    call = BY_NAME[name].call({"x": TensorType(dtype, array.shape)}, attributes)
    return {k: v.tolist() for k, v in evaluate(call.kernel, {"x": array}).items()}


def test_log_of_a_sum_of_exponentials_at_infinity() -> None:
    rows = [[-inf, -inf], [inf, 0], [inf, inf], [0, -inf], [1000, 1000]]
    found = run("reduce_log_sum_exp", rows, axes=1)["y"]
    assert found[:4] == [-inf, inf, inf, 0]
    assert found[4] == pytest.approx(1000 + np.log(2))
    assert np.isnan(run("reduce_log_sum_exp", [[nan, 1]], axes=1)["y"][0])


def test_softmax_of_large_numbers() -> None:
    assert run("softmax", [[1e4, 1e4], [-1e4, 1e4]])["y"] == [[0.5, 0.5], [0, 1]]
    assert run("log_softmax", [[-1e4, 1e4]])["y"] == [[-2e4, 0]]


@pytest.mark.parametrize("value", [100.0, -100.0, inf, -inf])
def test_activations_saturate(value: float) -> None:
    high = value > 0
    assert run("sigmoid", [value])["y"] == [1 if high else pytest.approx(0, abs=1e-40)]
    assert run("softplus", [value])["y"] == [value if high else pytest.approx(0, abs=1e-40)]
    assert run("elu", [value])["y"] == [value if high else -1]
    assert run("relu6", [value])["y"] == [6 if high else 0]
    assert run("hardsigmoid", [value])["y"] == [1 if high else 0]


@pytest.mark.parametrize(
    "name",
    [
        "relu",
        "relu6",
        "elu",
        "gelu",
        "silu",
        "mish",
        "hardswish",
        "hardsigmoid",
        "leaky_relu",
        "selu",
        "celu",
        "clip",
        "sign",
    ],
)
def test_nan_stays_nan(name: str) -> None:
    assert np.isnan(run(name, [nan])["y"][0])


def test_nan_wins_every_maximum() -> None:
    row = [[[1, nan, 3, nan]]]
    found = run("max_pool_with_positions", row, kernel=4)
    assert np.isnan(found["y"]).all()
    assert found["positions"] == [[[1]]]
    assert run("argmax", [[1, nan, 3, nan]])["y"] == [1]
    assert run("argmin", [[1, nan, 3, nan]])["y"] == [1]


def test_the_first_of_equals_is_chosen() -> None:
    assert run("argmax", [[1, 5, 5, 2]])["y"] == [1]
    assert run("argmin", [[3, 1, 1, 2]])["y"] == [1]
    assert run("max_pool_with_positions", [[[2, 2, 1, 1]]], kernel=2)["positions"] == [[[0, 2]]]


def test_top_k_orders_nan_above_numbers_and_equals_by_position() -> None:
    found = run("top_k", [[1, nan, 3, -inf, 3, inf]], k=6)
    assert found["positions"] == [[1, 5, 2, 4, 0, 3]]
    found = run("top_k", [[1, nan, 3, -inf, 3, inf]], k=6, largest=False)
    assert found["positions"] == [[3, 0, 2, 4, 5, 1]]


def test_minus_infinity_in_padding_is_not_a_position() -> None:
    """All of a window is minus infinity: the position is still one of the input."""
    x = [[[[-inf, -inf], [-inf, -inf]]]]
    found = run("max_pool_with_positions", x, kernel=3, stride=1, pad=1)
    assert found["positions"] == [[[[0, 0], [0, 0]]]]


def test_unpooling_inverts_pooling() -> None:
    x = np.random.default_rng(0).permutation(2 * 3 * 6 * 4).reshape(2, 3, 6, 4) + 1.0
    pool = BY_NAME["max_pool_with_positions"].call(
        {"x": TensorType(DType.F64, x.shape)}, {"kernel": 2}
    )
    pooled = evaluate(pool.kernel, {"x": x})
    y_type, positions_type = pool.outputs
    unpool = BY_NAME["max_unpool"].call({"x": y_type, "positions": positions_type}, {"kernel": 2})
    back = evaluate(unpool.kernel, {"x": pooled["y"], "positions": pooled["positions"]})["y"]
    assert back.shape == x.shape
    assert (back != 0).sum() == pooled["y"].size
    np.testing.assert_array_equal(back[back != 0], x[back != 0])


def test_corners_align_although_the_scale_leaves_a_rest() -> None:
    y = run("resize", [[[0, 1, 2, 3, 4]]], scale=1.5, mode="linear", coordinates="align_corners")
    assert y["y"] == [[pytest.approx([4 * o / 6 for o in range(7)])]]


def test_a_third_is_a_third() -> None:
    call = SPELLINGS["resize"].call(
        {"x": TensorType(DType.F32, (1, 1, symbol("H"), 9))}, {"scale": 1 / 3}
    )
    assert str(call.outputs[0]) == "f32[1, 1, floor(H/3), 3]"


def test_lrn_is_the_papers() -> None:
    """Section 3.3: n = 5 neighbours, k = 2, alpha = 1e-4 (ours is n times that)."""
    x = np.random.default_rng(0).uniform(-9, 9, (1, 7, 1))
    found = run("lrn", x, DType.F64, size=5, alpha=5e-4, beta=0.75, k=2.0)["y"]
    for c in range(7):
        total = sum(x[0, j, 0] ** 2 for j in range(max(0, c - 2), min(7, c + 3)))
        assert found[0][c][0] == pytest.approx(x[0, c, 0] / (2 + 1e-4 * total) ** 0.75)


def transposed_products(call: Call) -> int:
    """Pairs of input position and tap that land inside the output, counted one by one."""
    (n, c, *space), out = call.type("x").shape, call.outputs[0].shape[2:]
    total = 0
    for at in product(*map(range, space)):
        for tap in product(*map(range, call["kernel"])):
            lands = [
                i * s + r * d - p[0]
                for i, r, s, d, p in zip(
                    at, tap, call["stride"], call["dilation"], call["pad"], strict=True
                )
            ]
            total += all(0 <= o < extent for o, extent in zip(lands, out, strict=True))
    return total * n * c * (call["channels"] // call["groups"])


@pytest.mark.parametrize("seed", range(CASES_PER_OPERATOR))
def test_products_of_a_transposed_convolution(seed: int) -> None:
    call = draw_case("conv_transpose", seed).call
    cost = call.op.cost(call)
    n, c, *space = call.type("x").shape
    assert cost.macs == transposed_products(call)
    positions = n * c * int(np.prod(space)) * int(np.prod(call["kernel"]))
    assert cost.macs_by_input == positions * (call["channels"] // call["groups"])


def test_figures_from_teaching_texts() -> None:
    """256 -> 256, 3x3: 589,824 weights, an eighth with 8 groups; separable 16 -> 32: 656."""
    x = TensorType(DType.F32, (1, 256, 8, 8))

    def weights(x: TensorType, **attributes: Any) -> Any:
        op = BY_NAME["conv"]
        (weight,) = op.state(op.call({"x": x}, {"bias": False, **attributes}))
        return weight.type.elements

    assert weights(x, channels=256, kernel=3) == 589_824
    assert weights(x, channels=256, kernel=3, groups=8) == 73_728
    thin = TensorType(DType.F32, (1, 16, 8, 8))
    depthwise = weights(thin, channels=16, kernel=3, groups=16)
    assert depthwise + weights(thin, channels=32, kernel=1) == 656


def test_costs_of_symbolic_shapes() -> None:
    n, h, w = symbol("N"), symbol("H"), symbol("W")
    op = BY_NAME["conv"]
    call = op.call({"x": TensorType(DType.F32, (n, 3, h, w))}, {"channels": 8, "kernel": 3})
    types = {**call.types, **{s.name: s.type for s in op.state(call)}}
    cost = op.cost(op.call(types, call.attributes))
    assert str(cost.macs) == "216*N*H*W"
    assert substitute(cost.flops, {"N": 1, "H": 2, "W": 2}) == 4 * 8 * (27 + 26 + 1)

"""Shapes that are worked out by hand, symbolic ones, and regrouping against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convdsl.kernel.evaluate import evaluate
from convdsl.kernel.expr import reads
from convdsl.ops import SPELLINGS
from convdsl.ops.shape import regroup
from convdsl.tensor import Dim, DType, TensorType, symbol

N, H, W = symbol("N"), symbol("H"), symbol("W")
EVEN = symbol("H", minimum=2, divisor=2)


def shape_of(name: str, *shapes: tuple[Dim, ...], **attributes: Any) -> str:
    """The first output's shape, as text."""
    op = SPELLINGS[name]
    operands = [o.name for o in op.data_operands]
    if op.data_operands[-1].variadic:
        operands = [f"{operands[-1]}{i}" for i in range(len(shapes))]
    types = {o: TensorType(DType.F32, s) for o, s in zip(operands, shapes, strict=True)}
    call = op.call(types, attributes)
    return ", ".join(map(str, call.outputs[0].shape))


@pytest.mark.parametrize(
    ("name", "shape", "attributes", "expected"),
    [
        ("conv", (N, 3, H, W), {"channels": 64, "kernel": 7, "stride": 2},
         "N, 64, floor((H + 1)/2), floor((W + 1)/2)"),
        ("conv", (N, 3, 224, 224), {"channels": 8, "kernel": 3, "stride": 2, "pad": "same"},
         "N, 8, 112, 112"),
        ("conv", (N, 1, 572, 572), {"channels": 64, "kernel": 3, "pad": "valid"},
         "N, 64, 570, 570"),
        ("conv", (N, 3, H, W), {"channels": 8, "kernel": 3, "dilation": 2}, "N, 8, H, W"),
        ("max_pool", (N, 8, 112, 112), {"kernel": 3, "stride": 2, "pad": 1}, "N, 8, 56, 56"),
        ("max_pool", (N, 8, H, W), {"kernel": 3, "stride": 2, "ceil_mode": True},
         "N, 8, floor(H/2), floor(W/2)"),
        ("max_pool", (N, 8, EVEN, EVEN), {"kernel": 2}, "N, 8, H/2, H/2"),
        ("avg_pool", (N, 8, H, W), {"kernel": "global"}, "N, 8, 1, 1"),
        ("conv_transpose", (N, 8, 2, 2), {"channels": 4, "kernel": 3}, "N, 4, 4, 4"),
        ("conv_transpose", (N, 8, H, W), {"channels": 4, "kernel": 2, "stride": 2},
         "N, 4, 2*H, 2*W"),
        ("conv_transpose", (N, 8, H, W),
         {"channels": 4, "kernel": 4, "stride": 2, "pad": "same"}, "N, 4, 2*H, 2*W"),
        ("flatten", (N, 8, H, W), {}, "N, 8*H*W"),
        ("reshape", (N, 8, H, W), {"shape": (N, 2, -1)}, "N, 2, 4*H*W"),
        ("resize", (N, 8, H, W), {"scale": 0.5}, "N, 8, floor(H/2), floor(W/2)"),
        ("resize", (N, 8, 5, 5), {"size": (H, 2 * W)}, "N, 8, H, 2*W"),
        ("pixel_shuffle", (N, 8, H, W), {"factor": 2}, "N, 2, 2*H, 2*W"),
        ("pixel_unshuffle", (N, 2, EVEN, EVEN), {"factor": 2}, "N, 8, H/2, H/2"),
        ("slice", (N, 8, H, W), {"axes": (2, 3), "start": 1, "stop": -1}, None),
        ("slice", (N, 8, H, W), {"axes": 1, "start": 2, "stop": 6, "step": 2}, "N, 2, H, W"),
        ("slice", (N, 8, H + 2, W), {"axes": (2, 3), "stop": (H, W)}, "N, 8, H, W"),
        ("slice", (N, 8, 2 * H, W), {"axes": 2, "start": H}, "N, 8, H, W"),
        ("slice", (N, 8, 2 * H, W), {"axes": 2, "start": -1 * H}, "N, 8, H, W"),
        ("pad", (N, 8, H, W), {"pad": ((1, 2), (0, 0))}, "N, 8, H + 3, W"),
        ("tile", (N, 8, H), {"repeats": (1, 2, 3)}, "N, 16, 3*H"),
        ("expand", (8, 1, 1), {"shape": (N, -1, H, W)}, "N, 8, H, W"),
        ("reduce_mean", (N, 8, H, W), {"axes": "space"}, "N, 8"),
        ("reduce_mean", (N, 8, H, W), {"axes": (-1, 1), "keepdims": True}, "N, 1, H, 1"),
        ("argmax", (N, 8, H, W), {}, "N, H, W"),
        ("top_k", (N, 1000), {"k": 5}, "N, 5"),
    ],
)  # fmt: skip
def test_output_shapes(name: str, shape: Any, attributes: Any, expected: str | None) -> None:
    found = shape_of(name, shape, **attributes)
    if expected is not None:
        assert found == expected
    else:  # a slice of unknown extent binds to Python's
        op = SPELLINGS[name].call({"x": TensorType(DType.F32, shape)}, attributes)
        for h in range(3, 8):
            assert op.outputs[0].bind({"H": h}).shape[2] == len(range(h)[1:-1])


def test_joins_of_symbolic_shapes() -> None:
    assert shape_of("add", (N, 8, H, W), (8, 1, 1)) == "N, 8, H, W"
    assert shape_of("add", (N, 8, 1, 1), (N, 8, H, W)) == "N, 8, H, W"
    assert shape_of("concat", (N, 8, H, W), (N, 3, H, W)) == "N, 11, H, W"
    assert shape_of("concat", (N, 8, H, W), (N, 8, 2, W), axis=2) == "N, 8, H + 2, W"
    assert shape_of("matmul", (N, H, 5), (5, W)) == "N, H, W"
    pooled = symbol("H", minimum=16, divisor=16)
    assert shape_of("add", (N, pooled), (N, (pooled // 16) * 16)) == "N, H"


def test_splits_of_symbolic_extents() -> None:
    op = SPELLINGS["split"]
    call = op.call({"x": TensorType(DType.F32, (N, 8, EVEN))}, {"parts": 2, "axis": 2})
    assert call.output_names == ("y0", "y1")
    assert all(str(t.shape[2]) == "H/2" for t in call.outputs)


@pytest.mark.dear(share=4)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_regrouping_is_numpys_reshape(given_shape: list[int], random: Any) -> None:
    total = int(np.prod(given_shape))
    shape: list[int] = []
    while total > 1 and len(shape) < 4:
        factor = random.choice([f for f in range(1, total + 1) if total % f == 0])
        shape.append(factor)
        total //= factor
    shape.append(total)
    x = np.arange(float(np.prod(given_shape))).reshape(given_shape)
    call = SPELLINGS["reshape"].call(
        {"x": TensorType(DType.F64, tuple(given_shape))}, {"shape": tuple(shape)}
    )
    np.testing.assert_array_equal(evaluate(call.kernel, {"x": x})["y"], x.reshape(shape))


def test_surviving_axes_are_indexed_directly() -> None:
    n, c, h, w = (symbol(s, minimum=0) for s in "nchw")
    assert regroup((N, 8, H, W), (N, 8, H, W), (n, c, h, w)) == (n, c, h, w)
    assert regroup((N, 8), (N, 8, 1, 1), (n, c)) == (n, c, 0, 0)
    assert regroup((N, 1, 8, H), (N, 8, H), (n, c, h, w)) == (n, h, w)
    assert regroup((N, 2, 4, H, W), (N, 8, H, W), (n, c, c, h, w)) == (n, c * 4 + c, h, w)
    assert regroup((N, 8, H * W), (N, 8, H, W), (n, c, h)) == (n, c, h // W, h % W)


def test_whole_poolings_need_no_guards() -> None:
    x = TensorType(DType.F32, (N, 8, H, W))
    call = SPELLINGS["avg_pool"].call({"x": x}, {"kernel": "global"})
    (stage,) = call.kernel.stages
    assert [read.outside for read in reads(stage.body)] == [None]
